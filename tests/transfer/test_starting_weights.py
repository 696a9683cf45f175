"""Starting weights: what is loaded, what is new, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.untrained import untrained
from tinyjax import models, tasks
from tinyjax.config import classifier, detector
from tinyjax.errors import UserError
from tinyjax.run import run_folder
from tinyjax.run.weights import FORMAT
from tinyjax.tasks import classify, detect
from tinyjax.transfer import starting_weights

REAL = Path(__file__).parent / "real"
CLASSES = ("person", "vehicle", "animal")  # as of `untrained`


def leaves(kind, seed=1, classes=3, channels=1, backbone="mobilenetv3/s-6"):
    """A fresh network, all its arrays by path."""
    config = detector() if kind is detect else classifier()
    config.model.backbone = backbone
    model = kind.make_model(config, classes)
    params, stats = models.init(model, seed, (1, 64, 64, channels))
    return {path: np.asarray(leaf) for path, leaf in {**params, **stats}.items()}


def weights(kind, classes=CLASSES, **how):
    return starting_weights.Weights(
        "a.safetensors", leaves(kind, 2, len(classes), **how), 0.0, "", classes
    )


def without(path):
    found = weights(detect)
    return found._replace(leaves={p: leaf for p, leaf in found.leaves.items() if p != path})


def test_the_same_network_starts_with_every_array():
    ours, theirs = leaves(detect), weights(detect)
    fitted = starting_weights.fit(theirs, ours, classes=CLASSES)
    assert fitted.leaves.keys() == ours.keys() == {*fitted.loaded}
    assert fitted.new == fitted.skipped == fitted.reshaped == ()
    for path, leaf in theirs.leaves.items():
        np.testing.assert_array_equal(fitted.leaves[path], leaf)


def test_a_classifier_of_colors_starts_a_detector_of_grays():
    ours, theirs = leaves(detect), weights(classify, ("a", "b"), channels=3)
    fitted = starting_weights.fit(theirs, ours, classes=CLASSES)
    stem = "backbone/stem/kernel"
    assert fitted.reshaped == (stem,)
    np.testing.assert_allclose(
        fitted.leaves[stem], theirs.leaves[stem].sum(2, keepdims=True), rtol=1e-6
    )
    trunk = {path for path in ours if path.startswith("backbone/")}
    assert {*fitted.loaded} == trunk
    assert {*fitted.new} == ours.keys() - trunk
    assert {*fitted.skipped} == theirs.leaves.keys() - trunk
    for path in trunk - {stem}:
        np.testing.assert_array_equal(fitted.leaves[path], theirs.leaves[path])
    for path in fitted.new:
        assert fitted.leaves[path] is ours[path]
    lines = starting_weights.table(fitted, theirs).splitlines()
    assert lines[0] == "starts from a.safetensors:"
    assert {line.split()[0]: line.split()[1:] for line in lines[1:]} == {
        "arrays": ["loaded", "reshaped", "new", "skipped"],
        "backbone": [str(len(trunk)), "1", "-", "-"],
        "neck": ["-", "-", str(sum(path.startswith("neck/") for path in ours)), "-"],
        "head": ["-", "-", str(sum(path.startswith("head/") for path in ours)), "-"],
        "backbone/head": ["-", "-", "-", "5"],
        "backbone/hidden": ["-", "-", "-", "2"],
        "backbone/classifier": ["-", "-", "-", "2"],
    }


def test_what_is_named_starts_anew():
    ours, theirs = leaves(detect), weights(detect, ("a", "b"))
    fitted = starting_weights.fit(theirs, ours, ("head/class_out/.*",), CLASSES)
    assert {*fitted.new} == {"head/class_out/kernel", "head/class_out/bias"}
    assert fitted.leaves["head/class_out/bias"].shape == (3,)
    np.testing.assert_array_equal(
        fitted.leaves["head/box_out/kernel"], theirs.leaves["head/box_out/kernel"]
    )


@pytest.mark.parametrize(
    ("theirs", "new", "message"),
    [
        (
            lambda: weights(detect, ("a", "b")), (),
            r"the classes of a\.safetensors are a, b; here they are person, vehicle, animal: list "
            r"them .* reinit = \('head/class_out/\.\*',\)$",
        ),
        (
            lambda: weights(detect, ("a", "b"))._replace(classes=()), (),
            r"the classes of a\.safetensors are 2 without names; here they are person, vehicle, "
            r"animal: let the last layer start anew by reinit = \('head/class_out/\.\*',\)$",
        ),
        (
            lambda: weights(detect, CLASSES[::-1]), (),
            r"the classes of a\.safetensors are animal, vehicle, person; here they are person, "
            r"vehicle, animal.*reinit = \('head/class_out/\.\*',\)",
        ),
        (lambda: weights(detect, backbone="mobilenetv3/s-5"), (), "do not fit this network"),
        (
            lambda: without("neck/lateral32/kernel"), (),
            r"1 weights .*\(neck/lateral32/kernel: none there, \(1, 1, \d+, \d+\) here\)",
        ),
        (lambda: weights(detect), ("heads/.*",), r"reinit: 'heads/\.\*' matches no path"),
        (lambda: weights(detect), ("(",), r"reinit: '\(': give a regular expression \(missing"),
        (lambda: weights(detect), (3,), r"reinit: 3: give a regular expression"),
        (
            lambda: starting_weights.Weights("b.pth", {"other/kernel": np.zeros(1)}, 0.0), (),
            r"b\.pth has nothing that this network has",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(theirs, new, message):
    with pytest.raises(UserError, match=message):
        starting_weights.fit(theirs(), leaves(detect), new, CLASSES)


def test_read_a_run_folder_or_its_weights_alone(tmp_path):
    run = untrained(tmp_path / "run", seed=3)
    name = f"{run_folder.member_id({})}.safetensors"
    for place in (run, run / "weights" / name):
        found = starting_weights.read(str(place), "mobilenetv3/s-6")
        assert found.where == str(run / "weights" / name)
        assert (found.backbone, found.classes, found.eps) == ("mobilenetv3/s-6", CLASSES, 0.0)
        stored = load_file(run / "weights" / name)
        assert {path.partition("/")[2] for path in stored} == found.leaves.keys()


def test_weights_that_are_not_there_or_of_another_version(tmp_path):
    with pytest.raises(UserError, match=r"init = 'nowhere': no such run folder, \.safetensors"):
        starting_weights.read("nowhere", "mobilenetv3/s-6")
    with pytest.raises(UserError, match="has the run finished"):
        starting_weights.read(str(tmp_path), "mobilenetv3/s-6")
    run = untrained(tmp_path / "run")
    (about,) = (run / "weights").glob("*.json")
    told = json.loads(about.read_text())
    about.write_text(json.dumps({**told, "format": FORMAT + 1}))
    with pytest.raises(UserError, match=r"format 2, of a newer tinyjax; this one reads 1: upgrade"):
        starting_weights.read(str(run), "mobilenetv3/s-6")


@pytest.mark.parametrize("about", ['{"format": 1}', "[1]", '{"format": "2"}', "{}"])
def test_a_foreign_json_beside_our_weights_is_one_message(tmp_path, about):
    run = untrained(tmp_path / "run")
    (file,) = (run / "weights").glob("*.json")
    file.write_text(about)
    with pytest.raises(UserError, match=r"\.json: .*; give the one written with the weights"):
        starting_weights.read(str(run), "mobilenetv3/s-6")


def test_what_is_new_and_frozen_is_told():
    rates = {"backbone/a": 0.0, "neck/a": 0.0, "neck/b": 0.0, "head/a": 1.0}
    assert starting_weights.never_trained(rates, rates) == (
        "frozen although new: 3 arrays (backbone, neck) stay as they were drawn"
    )
    assert starting_weights.never_trained(["head/a"], rates) == ""


def test_public_weights_bring_their_epsilon_and_fold_to_gray():
    """torchvision's S-6 in a file by torch, without its classifier."""
    found = starting_weights.read(str(REAL / "s-6.half.pth"), "mobilenetv3/s-6")
    assert found.eps == 1e-3
    assert found.leaves["backbone/stem/kernel"].shape[2] == 3
    fitted = starting_weights.fit(found, leaves(detect), classes=CLASSES)
    assert fitted.reshaped == ("backbone/stem/kernel",)
    assert {starting_weights._part(path) for path in fitted.loaded} == {"backbone"}
    config = detector()
    config.model.backbone, config.model.batchnorm_eps = "mobilenetv3/s-6", 1e-5
    assert tasks.build_backbone(config).eps == 1e-5


def test_a_broken_file_is_one_message(tmp_path):
    run = untrained(tmp_path / "run")
    (file,) = (run / "weights").glob("*.safetensors")
    copy = tmp_path / "cut.safetensors"
    shutil.copy(file, copy)
    copy.write_bytes(copy.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"cut\.safetensors: broken"):
        starting_weights.read(str(copy), "mobilenetv3/s-6")
