"""Starting weights: which arrays are loaded, new or skipped, and what is an error."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.tiny_backbones import TINY
from tests.untrained import write_untrained_run
from tinyjax import models, tasks
from tinyjax.config import classifier, detector
from tinyjax.errors import UserError
from tinyjax.run import run_folder
from tinyjax.run.csv_files import write_rows
from tinyjax.run.weights import FORMAT
from tinyjax.tasks import classify, detect
from tinyjax.transfer.starting_weights import (
    StartingWeights,
    _module,
    describe,
    fit_to_network,
    load_starting_weights,
    untrained_warning,
)

REAL = Path(__file__).parent / "real"  # by make_real.py
CLASSES = ("person", "vehicle", "animal")  # those of `write_untrained_run`


def network_arrays(
    task, seed=1, classes=3, channels=1, backbone="mobilenetv3/s-6", name="point", neck="pan"
):
    """Return all arrays of a newly initialized network by path. name: of the detector."""
    config = classifier()
    if task is detect:
        config = detector(name)
        config.model.neck = neck
    config.model.backbone = backbone
    params, stats = models.init(task.build(config, classes), seed, (1, 64, 64, channels))
    return {path: np.asarray(leaf) for path, leaf in {**params, **stats}.items()}


def make_weights(task, classes=CLASSES, **options):
    arrays = network_arrays(task, 2, len(classes), **options)
    return StartingWeights("a.safetensors", arrays, 0.0, "", classes)


def weights_without(path):
    weights = make_weights(detect)
    return weights._replace(arrays={p: array for p, array in weights.arrays.items() if p != path})


def test_same_network_loads_every_array():
    current, weights = network_arrays(detect), make_weights(detect)
    fitted = fit_to_network(weights, current, classes=CLASSES)
    assert fitted.arrays.keys() == current.keys() == {*fitted.loaded}
    assert fitted.new == fitted.skipped == fitted.reshaped == ()
    for path, array in weights.arrays.items():
        np.testing.assert_array_equal(fitted.arrays[path], array)


def test_detector_of_gray_images_starts_from_a_classifier_of_color_images():
    current, weights = network_arrays(detect), make_weights(classify, ("a", "b"), channels=3)
    fitted = fit_to_network(weights, current, classes=CLASSES)
    stem = "backbone/stem/kernel"
    assert fitted.reshaped == (stem,)
    np.testing.assert_allclose(
        fitted.arrays[stem], weights.arrays[stem].sum(2, keepdims=True), rtol=1e-6
    )
    trunk = {path for path in current if path.startswith("backbone/")}
    assert {*fitted.loaded} == trunk
    assert {*fitted.new} == current.keys() - trunk
    assert {*fitted.skipped} == weights.arrays.keys() - trunk
    for path in trunk - {stem}:
        np.testing.assert_array_equal(fitted.arrays[path], weights.arrays[path])
    for path in fitted.new:
        assert fitted.arrays[path] is current[path]
    lines = describe(fitted, weights).splitlines()
    assert lines[0] == "starts from a.safetensors:"
    neck, head = (
        sum(path.startswith(f"{module}/") for path in current) for module in ("neck", "head")
    )
    assert {line.split()[0]: line.split()[1:] for line in lines[1:]} == {
        "arrays": ["loaded", "reshaped", "new", "skipped"],
        "backbone": [str(len(trunk)), "1", "0", "0"],
        "neck": ["0", "0", str(neck), "0"],
        "head": ["0", "0", str(head), "0"],
        "backbone/head": ["0", "0", "0", "5"],
        "backbone/hidden": ["0", "0", "0", "2"],
        "backbone/classifier": ["0", "0", "0", "2"],
    }


def test_paths_in_reinit_keep_their_initial_values():
    current, weights = network_arrays(detect), make_weights(detect, ("a", "b"))
    fitted = fit_to_network(weights, current, ("head/class_out/.*",), CLASSES)
    assert {*fitted.new} == {"head/class_out/kernel", "head/class_out/bias"}
    assert fitted.arrays["head/class_out/bias"].shape == (3,)
    np.testing.assert_array_equal(
        fitted.arrays["head/box_out/kernel"], weights.arrays["head/box_out/kernel"]
    )


@pytest.mark.parametrize(
    ("make", "reinit", "message"),
    [
        (
            lambda: make_weights(detect, ("a", "b")), (),
            r"the classes of a\.safetensors are a, b, those of this network are person, vehicle, "
            r"animal: list the classes .* reinit = \('head/class_out/\.\*',\)$",
        ),
        (
            lambda: make_weights(detect, ("a", "b"))._replace(classes=()), (),
            r"the classes of a\.safetensors are 2 without names, those of this network are person, "
            r"vehicle, animal: initialize the last layer again with reinit = "
            r"\('head/class_out/\.\*',\)$",
        ),
        (
            lambda: make_weights(detect, CLASSES[::-1]), (),
            r"the classes of a\.safetensors are animal, vehicle, person, those of this network are "
            r"person, vehicle, animal.*reinit = \('head/class_out/\.\*',\)",
        ),
        (
            lambda: make_weights(detect, backbone="mobilenetv3/s-5"), (),
            "do not fit this network .*; set model.backbone to that of the file",
        ),
        (
            lambda: weights_without("neck/lateral32/kernel"), (),
            r"1 arrays .*\(neck/lateral32/kernel: none in the file, \(1, 1, \d+, \d+\) in the net",
        ),
        (lambda: make_weights(detect), ("heads/.*",), r"reinit: 'heads/\.\*' matches no whole"),
        (lambda: make_weights(detect), ("(",), r"reinit: '\(': give a regular expr.* \(missing"),
        (lambda: make_weights(detect), (3,), r"reinit: 3: give a regular expression"),
        (
            lambda: StartingWeights("b.pth", {"other/kernel": np.zeros(1)}, 0.0), (),
            r"b\.pth has no array of this network",
        ),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_rejected(make, reinit, message):
    with pytest.raises(UserError, match=message):
        fit_to_network(make(), network_arrays(detect), reinit, CLASSES)


@pytest.mark.parametrize(
    ("name", "classes", "message"),
    [
        ("retinanet", ("a", "b"), r"are 2 without names.*reinit = \('head/class_out/\.\*',\)$"),
        (
            "faster_rcnn",
            ("a", "b"),
            r"are 2 .*class_out/\.\*', 'box_head1/box_",
        ),
        (
            "cascade_rcnn",
            ("a", "b"),
            r"box_head1/class_out.*'box_head3/class_out/\.\*'\)$",
        ),
    ],
)
def test_weights_of_other_classes_are_rejected_for_every_detector(name, classes, message):
    weights = make_weights(detect, classes, name=name)._replace(classes=())
    current = network_arrays(detect, name=name)
    with pytest.raises(UserError, match=message) as error:
        fit_to_network(weights, current, (), CLASSES)
    reinit = re.findall(r"'(\S+\.\*)'", str(error.value))
    fitted = fit_to_network(weights, current, reinit, CLASSES)
    assert {path.split("/")[1] for path in fitted.new} <= {"class_out", "box_out"}


def test_starts_from_another_detector():
    """RetinaNet with another neck: only the backbone is loaded."""
    weights = make_weights(detect, name="retinanet")
    current = network_arrays(detect, name="faster_rcnn", neck="bifpn")
    with pytest.raises(UserError, match=r"initialize them again with reinit = \('neck/\.\*',\)$"):
        fit_to_network(weights, current, (), CLASSES)
    fitted = fit_to_network(weights, current, ("neck/.*",), CLASSES)
    assert {path.split("/")[0] for path in fitted.loaded} == {"backbone"}
    assert {path.split("/")[0] for path in fitted.new} == {"neck", "rpn", "box_head1"}


def test_load_from_a_run_folder_or_its_weights_file(tmp_path):
    run = write_untrained_run(tmp_path / "run", seed=3)
    file = run / "weights" / f"{run_folder.member_id({})}.safetensors"
    for path in (run, file):
        weights = load_starting_weights(str(path), TINY)
        assert weights.source == str(file)
        assert (weights.backbone, weights.classes) == (TINY, CLASSES)
        assert weights.eps == 0.0
        assert {name.partition("/")[2] for name in load_file(file)} == weights.arrays.keys()


def test_averages_of_a_sweep_are_selected_by_backbone_and_seed(tmp_path):
    sweep = tmp_path / "sweep"
    averages = sweep / "averages"
    averages.mkdir(parents=True)
    rows = [{"member": f"m{seed}", "backbone": TINY, "seed": seed} for seed in (0, 1)]
    write_rows(sweep / "members.csv", rows, rows[0])
    for name in ("plan.json", "results.csv"):
        (sweep / name).write_text("member\n")
    for seed in (0, 1):
        run = write_untrained_run(tmp_path / f"run{seed}", seed=seed)
        for file in (run / "weights").iterdir():
            file.rename(averages / f"paths-1-m{seed}{file.suffix}")
    for seed in (0, 1):
        weights = load_starting_weights(str(averages / "paths-1"), TINY, seed)
        assert weights.source == str(averages / f"paths-1-m{seed}.safetensors")
    with pytest.raises(UserError, match=r"0 members of this sweep are .* of seed 2"):
        load_starting_weights(str(averages / "paths-1"), TINY, 2)
    with pytest.raises(UserError, match="no such run folder, averages"):
        load_starting_weights(str(averages / "paths-4"), TINY, 0)


def test_batchnorm_epsilon_of_a_run_is_loaded(tmp_path):
    run = write_untrained_run(tmp_path / "run")
    (file,) = (run / "weights").glob("*.json")
    metadata = json.loads(file.read_text())
    metadata["config"]["model"]["batchnorm_eps"] = 1e-5
    file.write_text(json.dumps(metadata))
    assert load_starting_weights(str(run), TINY).eps == 1e-5


def test_missing_weights_and_other_format_versions_are_rejected(tmp_path):
    with pytest.raises(UserError, match="init = 'nowhere': no such run folder, averages"):
        load_starting_weights("nowhere", TINY)
    with pytest.raises(UserError, match="has the run finished"):
        load_starting_weights(str(tmp_path), TINY)
    run = write_untrained_run(tmp_path / "run")
    (file,) = (run / "weights").glob("*.json")
    metadata = json.loads(file.read_text())
    file.write_text(json.dumps({**metadata, "format": FORMAT + 1}))
    message = f"format {FORMAT + 1}, of a newer tinyjax; this version reads {FORMAT}: upgrade"
    with pytest.raises(UserError, match=message):
        load_starting_weights(str(run), TINY)


@pytest.mark.parametrize("text", [f'{{"format": {FORMAT}}}', "[1]", '{"format": "2"}', "{}"])
def test_foreign_json_next_to_weights_is_rejected(tmp_path, text):
    run = write_untrained_run(tmp_path / "run")
    (file,) = (run / "weights").glob("*.json")
    file.write_text(text)
    with pytest.raises(UserError, match=r"\.json: .*; give the .* written with the weights"):
        load_starting_weights(str(run), TINY)


def test_new_and_frozen_arrays_are_reported():
    multipliers = {"backbone/a": 0.0, "neck/a": 0.0, "neck/b": 0.0, "head/a": 1.0}
    assert untrained_warning(multipliers, multipliers) == (
        "frozen at their random initial values: 3 arrays (backbone, neck)"
    )
    assert untrained_warning(["head/a"], multipliers) == ""


def test_public_weights_set_the_epsilon_and_fold_to_gray():
    """torchvision's S-6 in a file by torch, without its classifier."""
    weights = load_starting_weights(str(REAL / "s-6.half.pth"), "mobilenetv3/s-6")
    assert weights.eps == 1e-3
    assert weights.arrays["backbone/stem/kernel"].shape[2] == 3
    fitted = fit_to_network(weights, network_arrays(detect), classes=CLASSES)
    assert fitted.reshaped == ("backbone/stem/kernel",)
    assert {_module(path) for path in fitted.loaded} == {"backbone"}
    config = detector()
    config.model.backbone, config.model.batchnorm_eps = "mobilenetv3/s-6", 1e-5
    assert tasks.build_backbone(config).eps == 1e-5


def test_broken_file_is_rejected(tmp_path):
    run = write_untrained_run(tmp_path / "run")
    (file,) = (run / "weights").glob("*.safetensors")
    copy = tmp_path / "cut.safetensors"
    shutil.copy(file, copy)
    copy.write_bytes(copy.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"cut\.safetensors: broken"):
        load_starting_weights(str(copy), TINY)
