"""Classification through the commands: training, evaluation, prediction, starting weights."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import tinyjax
from tests.configs import classifier as classifier_config
from tests.tiny_backbones import TINY, TINY_WIDE
from tinyjax import errors, evaluate, models, predict
from tinyjax.api import train
from tinyjax.errors import UserError
from tinyjax.models import mobilenetv3
from tinyjax.run.csv_files import read_rows
from tinyjax.run.weights import FORMAT
from tinyjax.train import STOPPED
from tinyjax.train import main as train_main
from tinyjax.train import train as train_until

CLASSES = ("rows", "columns")


def make_stripes(direction, seed):
    """uint8 [32, 32]: bright rows or columns at a random phase."""
    rng = np.random.default_rng(seed)
    wave = 128 + 100 * np.sin(np.arange(32) * 0.8 + rng.uniform(0, 6))
    image = np.broadcast_to(wave[:, None] if direction == "rows" else wave[None, :], (32, 32))
    return (image + rng.normal(0, 8, (32, 32))).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("stripes")
    for split, count in (("train", 8), ("val", 4)):
        for k, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = make_stripes(name, (len(split), k, i))
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def classifier_run(image_folder, tmp_path_factory):
    """A run that has learned to tell rows from columns in 200 steps."""
    folder = tmp_path_factory.mktemp("classifier") / "run"
    fields = ["schedule.steps=200", "eval_every=200", "save_every=200", "log_every=20",
              "batch=8", "optimizer.lr=5e-3", "augment.area=0.6"]  # fmt: skip
    argv = ["--config", f"tests/configs/classifier.py:{image_folder}", "--workdir", str(folder)]
    assert train_main([*argv, *(f"--config.{field}" for field in fields)]) == 0
    return folder


def test_training_learns_and_writes_a_run_folder(classifier_run):
    (row,) = read_rows(classifier_run / "results.csv")
    assert row["suite"] == "val"
    assert float(row["mean_class"]) == float(row["top1"]) == 1
    assert {p.name for p in (classifier_run / "figures").iterdir()} == {
        "training.png", "scores.png", "confusion.png", "per_class.png",
    }  # fmt: skip
    assert [r["class"] for r in read_rows(classifier_run / "per_class.csv")] == ["columns", "rows"]
    assert (classifier_run / "samples" / "val.png").exists()
    assert not (classifier_run / "samples" / "worst_val.png").exists()  # all predictions are right


def test_evaluate_repeats_the_scores_of_training(classifier_run, capsys):
    assert evaluate.main(["--workdir", str(classifier_run)]) == 0
    output = capsys.readouterr().out
    assert re.search(r"suite +mean_class +top1 +top5 +images\n", output)
    assert re.search(r"\nval +1\.000 +1\.000 +1\.000 +8\n", output)


def test_load_and_call(classifier_run):
    model = tinyjax.load(classifier_run)
    image = make_stripes("rows", 99)
    result = model(image)
    assert (result.names[0], len(result)) == ("rows", 2)
    assert result.scores.sum() == pytest.approx(1, abs=1e-5)
    assert result.scores[0] > result.scores[1]
    color_image = np.repeat(make_stripes("columns", 98)[..., None], 3, -1)
    results = model([image, color_image], threshold=0.5)
    assert [result.names for result in results] == [("rows",), ("columns",)]
    assert model(image, classes="columns").names == ("columns",)
    with pytest.raises(UserError, match="did you mean 'rows'"):
        model(image, classes="row")
    assert result.draw(image).size[0] >= 96


def test_predict_writes_classes(classifier_run, image_folder, tmp_path, capsys):
    argv = ["--workdir", str(classifier_run), "--output", str(tmp_path / "out")]
    images = image_folder / "val" / "rows"
    assert predict.main([*argv, "--input", str(images), "--threshold=0.5"]) == 0
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [(row["file_name"], row["category"]) for row in rows] == [
        (f"{i}.png", "rows") for i in range(4)
    ]
    table = read_rows(tmp_path / "out" / "predictions.csv")
    assert [(row["file"], row["category"], row["x1"]) for row in table] == [
        (f"{i}.png", "rows", "") for i in range(4)
    ]
    assert (tmp_path / "out" / "3.png.png").exists()
    assert "4 classes (4 rows) in 4 images" in capsys.readouterr().out


def write_torchvision_weights(file):
    """Write random weights of the tiny backbone without classifier, by torchvision's names."""
    arch = models.architecture(TINY)
    params, stats = models.init(models.build(TINY, 2), 0, (1, 32, 32, 3))
    state = {}
    for path, leaf in {**params, **stats}.items():
        if path.startswith("classifier/"):
            continue
        axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[leaf.ndim]
        array = np.ascontiguousarray(np.transpose(leaf, axes))
        state[mobilenetv3.torchvision_name(path, arch)] = array
    save_file(state, file)


def test_more_steps_compile_no_further_programs(noise_images, tmp_path, compiled):
    """Also: the network takes the BatchNorm epsilon of the public weights that it starts from."""
    weights = tmp_path / "weights.safetensors"
    write_torchvision_weights(weights)
    counts = []
    for steps in (3, 6, 9):  # the first run also compiles what all runs of a process share
        compiled.clear()
        config = classifier_config.get_config(str(noise_images))
        config.schedule.steps, config.eval_every, config.init = steps, steps, str(weights)
        assert train(config, tmp_path / f"{steps}") == 0
        assert tinyjax.load(tmp_path / f"{steps}").config.model.batchnorm_eps == 1e-3
        counts.append(len(compiled))
    assert counts[0] >= counts[1] == counts[2] > 0


class StopAtCheck(list):
    """Requests to stop that are empty the first n times that they are checked."""

    def __init__(self, n):
        self.remaining = n

    def __bool__(self):
        self.remaining -= 1
        return self.remaining < 0


@pytest.mark.slow
def test_a_run_stopped_in_its_second_phase_and_moved_ends_as_if_uninterrupted(
    image_folder, tmp_path
):
    config = classifier_config.get_config(str(image_folder))
    config.phases = ({"freeze": ("backbone",), "schedule.steps": 3}, {"schedule.steps": 4})
    uninterrupted, stopped, moved = (tmp_path / n for n in ("uninterrupted", "stopped", "moved"))
    assert train(config, uninterrupted) == 0
    assert train_until(config, stopped, StopAtCheck(6)) == STOPPED
    assert not (stopped / "results.csv").exists()
    assert (stopped / "phase1" / "results.csv").exists()
    stopped.rename(moved)
    assert train(config, moved) == 0
    for name in ("results.csv", "phase2/metrics.csv"):
        assert (moved / name).read_text() == (uninterrupted / name).read_text()
    (weights,) = (uninterrupted / "weights").glob("*[!t].safetensors")
    assert (moved / "weights" / weights.name).read_bytes() == weights.read_bytes()


def copy_as_newer(run, folder):
    """Copy the run's weights, as if written by a later version."""
    shutil.copytree(run / "weights", folder / "weights")
    for file in (folder / "weights").glob("*.json"):
        metadata = json.loads(file.read_text())
        file.write_text(json.dumps({**metadata, "format": FORMAT + 1}))


@pytest.mark.parametrize(
    ("task", "fields", "message"),
    [
        ("detect", f"init={{run}} model.backbone={TINY_WIDE}", f"of {TINY}, do not fit"),
        ("detect", "init={newer}", "of a newer tinyjax"),
        ("detect", "init={empty}/nowhere", "no such run folder"),
        ("detect", "freeze=backbones", "freeze: 'backbones': did you mean 'backbone'"),
        ("detect", "freeze=[('backbon/.*',0),('.*',1)]", "freeze: 'backbon/.*' matches no path"),
        ("detect", "freeze=[('backbone/.*',0)]", "no rule matches head/"),
        ("detect", "freeze=[('.*',0)]", "nothing is left to train"),
        (
            "classify",
            "init={run} data.common.source={lines}",
            "those of this network are columns, lines",
        ),
        ("classify", "init={run} reinit=backbone/classifiers/.*", "reinit: "),
    ],
)
def test_mistakes_about_starting_weights_are_one_message(
    task, fields, message, classifier_run, image_folder, tmp_path, capsys
):
    copy_as_newer(classifier_run, tmp_path / "newer")
    lines = shutil.copytree(image_folder, tmp_path / "lines")
    for split in ("train", "val"):
        (lines / split / "rows").rename(lines / split / "lines")
    config_files = {
        "detect": "tests/configs/detector.py",
        "classify": f"tests/configs/classifier.py:{image_folder}",
    }
    paths = {"run": classifier_run, "newer": tmp_path / "newer", "lines": lines, "empty": tmp_path}
    argv = ["--config", config_files[task], "--workdir", str(tmp_path / "run")]
    argv += [f"--config.{field}" for field in fields.format(**paths).split()]
    assert errors.exit_code(lambda: train_main(argv)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run" / "results.csv").exists()
