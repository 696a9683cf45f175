"""From a folder of images to a classifier, to what starts from it: through the commands."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tinyjax
from tests.configs import classifier as tiny_classifier
from tests.configs import detector
from tinyjax import errors, evaluate, predict, train
from tinyjax.errors import UserError
from tinyjax.run import run_folder
from tinyjax.run.checkpoints import Checkpoints
from tinyjax.run.weights import FORMAT, read_weights

CLASSES = ("rows", "columns")
REAL = Path(__file__).parent / "transfer" / "real"


def stripes(kind, seed):
    """uint8 [32, 32], bright rows or columns of a random phase."""
    rng = np.random.default_rng(seed)
    wave = 128 + 100 * np.sin(np.arange(32) * 0.8 + rng.uniform(0, 6))
    image = np.broadcast_to(wave[:, None] if kind == "rows" else wave[None, :], (32, 32))
    return (image + rng.normal(0, 8, (32, 32))).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("stripes")
    for split, many in (("train", 8), ("val", 4)):
        for k, kind in enumerate(CLASSES):
            (root / split / kind).mkdir(parents=True)
            for i in range(many):
                pixels = stripes(kind, (len(split), k, i))
                Image.fromarray(pixels).save(root / split / kind / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def classifier(photos, tmp_path_factory):
    """A run that has learned a little: rows from columns in 200 steps."""
    folder = tmp_path_factory.mktemp("classifier") / "run"
    more = ["schedule.steps=200", "eval_every=200", "save_every=200", "log_every=20",
            "batch=8", "optimizer.lr=5e-3", "augment.area=0.6"]  # fmt: skip
    argv = ["--config", f"tests/configs/classifier.py:{photos}", "--workdir", str(folder)]
    assert train.main([*argv, *(f"--config.{one}" for one in more)]) == 0
    return folder


def rows_of(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_it_learns_and_leaves_a_run_folder(classifier):
    (row,) = rows_of(classifier / "results.csv")
    assert row["suite"] == "val"
    assert float(row["mean_class"]) == float(row["top1"]) == 1
    assert {p.name for p in (classifier / "figures").iterdir()} == {
        "training.png", "scores.png", "confusion.png", "per_class.png",
    }  # fmt: skip
    assert [r["class"] for r in rows_of(classifier / "per_class.csv")] == ["columns", "rows"]
    assert (classifier / "samples" / "val.png").exists()
    assert not (classifier / "samples" / "worst_val.png").exists()  # nothing is mistaken


def test_evaluate_says_the_same(classifier, capsys):
    assert evaluate.main(["--workdir", str(classifier)]) == 0
    text = capsys.readouterr().out
    assert "mean_class        top1        top5      images" in text
    assert "val                1.000       1.000       1.000           8" in text


def test_load_and_call(classifier):
    model = tinyjax.load(classifier)
    image = stripes("rows", 99)
    found = model(image)
    assert (found.names[0], len(found)) == ("rows", 2)
    assert found.scores.sum() == pytest.approx(1, abs=1e-5)
    assert found.scores[0] > found.scores[1]
    several = model([image, np.repeat(stripes("columns", 98)[..., None], 3, -1)], threshold=0.5)
    assert [one.names for one in several] == [("rows",), ("columns",)]
    assert model(image, classes="columns").names == ("columns",)
    with pytest.raises(UserError, match="did you mean 'rows'"):
        model(image, classes="row")
    assert found.draw(image).size[0] >= 96


def test_predict_writes_classes(classifier, photos, tmp_path, capsys):
    argv = ["--workdir", str(classifier), "--output", str(tmp_path / "out")]
    assert predict.main([*argv, "--input", str(photos / "val" / "rows"), "--threshold=0.5"]) == 0
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [(row["file_name"], row["category"]) for row in rows] == [
        (f"{i}.png", "rows") for i in range(4)
    ]
    table = rows_of(tmp_path / "out" / "predictions.csv")
    assert [(row["file"], row["category"], row["x1"]) for row in table] == [
        (f"{i}.png", "rows", "") for i in range(4)
    ]
    assert (tmp_path / "out" / "3.png.png").exists()
    assert "4 classes (4 rows) in 4 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    "task", ["classify", pytest.param("detect", marks=pytest.mark.slow)]
)  # the detector's programs take a minute to compile
def test_probing_then_fine_tuning_from_it(classifier, photos, tmp_path, capsys, task):
    """Two phases in one command: in the first the backbone stands still, bit for bit, with decay;
    in the second it moves. The folder is that of the last one.
    """
    folder = tmp_path / "run"
    config = detector.get_config() if task == "detect" else tiny_classifier.get_config(str(photos))
    config.init = str(classifier)
    config.optimizer.weight_decay = 0.5
    config.phases = (
        {"freeze": ("backbone",), "schedule.steps": 3},
        {"schedule.steps": 3, "optimizer.backbone_lr_scale": 0.1},
    )
    assert train(config, folder) == 0
    text = capsys.readouterr().out
    assert "phase 1 of 2: {'freeze': ('backbone',), 'schedule.steps': 3}" in text
    assert f"starts from {classifier}" in text
    assert re.search(r"backbone/stem +\d+ frozen", text)
    assert re.search(r"backbone/stem +\d+ train at 0\.1 of the rate", text)

    name = run_folder.member_id({})
    first, probed, tuned = (
        {**trees["params"], **trees["stats"]}
        for trees, _ in (
            read_weights(place / "weights" / name)
            for place in (classifier, folder / "phase1", folder / "phase2")
        )
    )
    trunk = [p for p in probed if p.startswith(("backbone/stem/", "backbone/stage"))]
    for path in trunk:
        np.testing.assert_array_equal(probed[path], first[path])
    moved = [p for p in trunk if (tuned[p] != probed[p]).any()]
    assert len(moved) > 0.9 * len(trunk)
    last = "head/class_out/kernel" if task == "detect" else "backbone/classifier/kernel"
    assert (probed[last] != tuned[last]).any()

    rows = rows_of(folder / "results.csv")
    suites = sorted(config.data.suites)
    assert sorted((row["phase"], row["suite"]) for row in rows) == [
        (phase, suite) for phase in "12" for suite in suites
    ]
    for path, leaf in read_weights(folder / "weights" / name)[0]["params"].items():
        np.testing.assert_array_equal(leaf, tuned[path])
    assert len(tinyjax.load(folder).classes) == (3 if task == "detect" else 2)
    assert train(config, folder) == 0
    assert "this run is finished" in capsys.readouterr().out
    assert Checkpoints(folder / "phase1/populations/0/checkpoints").latest() == 3


def test_more_steps_compile_nothing_more(classifier, photos, tmp_path, compiled):
    """From public weights, whose epsilon the network takes on."""
    counts = []
    for steps in (6, 9):  # `classifier` has warmed up what is shared by runs of one process
        compiled.clear()
        config = tiny_classifier.get_config(str(photos))
        config.schedule.steps, config.init = steps, str(REAL / "s-6.half.pth")
        assert train(config, tmp_path / f"{steps}") == 0
        assert tinyjax.load(tmp_path / f"{steps}").config.model.batchnorm_eps == 1e-3
        counts.append(len(compiled))
    assert counts[0] == counts[1] > 0


class Later(list):
    """Requests to stop, of which the first comes when it is looked for the n-th time."""

    def __init__(self, n):
        self.left = n

    def __bool__(self):
        self.left -= 1
        return self.left < 0


@pytest.mark.slow
def test_stopped_in_the_second_phase_and_moved_it_ends_as_if_undisturbed(photos, tmp_path):
    config = tiny_classifier.get_config(str(photos))
    config.phases = ({"freeze": ("backbone",), "schedule.steps": 3}, {"schedule.steps": 4})
    assert train(config, tmp_path / "whole") == 0
    code = train.train(config, tmp_path / "cut", Later(6))
    assert code == train.STOPPED
    assert not (tmp_path / "cut" / "results.csv").exists()
    assert (tmp_path / "cut" / "phase1" / "results.csv").exists()
    (tmp_path / "cut").rename(tmp_path / "moved")
    assert train(config, tmp_path / "moved") == 0
    for name in ("results.csv", "phase2/metrics.csv"):
        assert (tmp_path / "moved" / name).read_text() == (tmp_path / "whole" / name).read_text()
    (whole,) = (tmp_path / "whole" / "weights").glob("*[!t].safetensors")
    assert (tmp_path / "moved" / "weights" / whole.name).read_bytes() == whole.read_bytes()


def newer(run, folder):
    """The run's weights, as a later version might have written them."""
    shutil.copytree(run / "weights", folder / "weights")
    for about in (folder / "weights").glob("*.json"):
        told = json.loads(about.read_text())
        about.write_text(json.dumps({**told, "format": FORMAT + 1}))


@pytest.mark.parametrize(
    ("task", "line", "message"),
    [
        ("detect", "init={run} model.backbone=mobilenetv3/s-5", "of mobilenetv3/s-6, do not fit"),
        ("detect", "init={newer}", "of a newer tinyjax"),
        ("detect", "init={empty}/nowhere", "no such run folder"),
        ("detect", "freeze=backbones", "freeze: 'backbones': did you mean 'backbone'"),
        ("detect", "freeze=[('backbon/.*',0),('.*',1)]", "freeze: 'backbon/.*' matches no path"),
        ("detect", "freeze=[('backbone/.*',0)]", "no rule for head/"),
        ("detect", "freeze=[('.*',0)]", "nothing is left to train"),
        ("classify", "init={run} data.common.source={lines}", "here they are columns, lines"),
        ("classify", "init={run} reinit=backbone/classifiers/.*", "reinit: "),
    ],
)
def test_a_start_that_does_not_fit_is_one_message(
    task, line, message, classifier, photos, tmp_path, capsys
):
    newer(classifier, tmp_path / "newer")
    lines = shutil.copytree(photos, tmp_path / "lines")
    for split in ("train", "val"):
        (lines / split / "rows").rename(lines / split / "lines")
    file = {
        "detect": "tests/configs/detector.py",
        "classify": f"tests/configs/classifier.py:{photos}",
    }
    changes = line.format(
        run=classifier, newer=tmp_path / "newer", lines=lines, empty=tmp_path
    ).split()
    argv = ["--config", file[task], "--workdir", str(tmp_path / "run")]
    argv += [f"--config.{change}" for change in changes]
    assert errors.exit_code(lambda: train.main(argv)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "run" / "results.csv").exists()
