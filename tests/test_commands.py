"""Commands from end to end on tiny data, and their messages for invalid input."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tinyjax import config, errors
from tinyjax.evaluate import main as evaluate
from tinyjax.run import run_folder
from tinyjax.run.csv_files import read_rows
from tinyjax.tasks import detect
from tinyjax.train import main as train

CONFIG = str(Path(__file__).parent / "configs" / "detector.py")
CLASSIFIER = str(Path(__file__).parent / "configs" / "classifier.py")


@pytest.fixture(scope="module")
def folder(train_once, tmp_path_factory):
    """A copy, which tests may evaluate."""
    return shutil.copytree(train_once("detector") / "run", tmp_path_factory.mktemp("run") / "run")


def test_train_writes_the_run_folder(folder):
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert {
        "config.json", "environment.txt", "log.txt", "members.csv", "metrics.csv", "results.csv",
        "figures/training.png", "figures/scores.png", "samples/val.png", "samples/day.png",
    } <= files  # fmt: skip
    assert [r["suite"] for r in read_rows(folder / "results.csv")] == ["day", "val"]
    losses = [
        r
        for r in read_rows(folder / "metrics.csv")
        if (r["split"], r["metric"]) == ("train", "loss")
    ]
    assert [int(r["step"]) for r in losses] == list(range(1, 7))
    assert np.isfinite([float(r["value"]) for r in losses]).all()


def test_run_records_the_commit(tmp_path):
    assert run_folder._commit(tmp_path) == ""  # installed from a package
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    file = tmp_path / "a.py"
    file.write_text("1")
    for words in (["init", "-q"], ["add", "a.py"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    clean = run_folder._commit(tmp_path)
    assert len(clean) >= 7
    assert head.stdout.startswith(clean)
    file.write_text("2")
    assert run_folder._commit(tmp_path) == f"{clean}-dirty"


def test_evaluate_repeats_the_scores_of_the_last_weights(folder, capsys):
    assert evaluate(["--workdir", str(folder)]) == 0
    again = {r["suite"]: r for r in read_rows(folder / "evaluations" / "last.csv")}
    for row in read_rows(folder / "results.csv"):
        both = row.keys() & again[row["suite"]].keys()
        assert both >= {"member", "AP", "AP50", "AP75", "AR100", "AP/person", "AP50/8-16", "boxes"}
        assert {name: again[row["suite"]][name] for name in both} == {n: row[n] for n in both}
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("AP50", "person", "8-16", "val", "day"))


def test_evaluate_best_weights_on_one_suite(folder, capsys):
    flags = ["--weights", "best", "--suite", "val", "--config.nms.iou_threshold=0.7"]
    assert evaluate(["--workdir", str(folder), *flags]) == 0
    assert [r["suite"] for r in read_rows(folder / "evaluations" / "best.csv")] == ["val"]


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "benchmark", "prepare"])
def test_help_imports_no_heavy_packages(command):
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['{command}', '--help']\n"
        "try:\n"
        f"    runpy.run_module('tinyjax.{command}', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0, end.code\n"
        "assert not {'jax', 'matplotlib', 'flax'} & set(sys.modules), 'heavy imports'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"tinyjax.{command}" in done.stdout


TRAIN = f"--config {CONFIG} --workdir {{empty}}/new --config."
DIVERGING = f"--config {CLASSIFIER}:{{images}} --workdir {{empty}}/new --config.optimizer.lr=1e30"


@pytest.mark.parametrize(
    ("command", "line", "message"),
    [
        (evaluate, "--workdir {empty}", "no run here"),
        (evaluate, "--workdir {run} --suite vall", "did you mean 'val'"),
        (train, TRAIN + "schedule.step=3", "schedule.steps"),
        (train, TRAIN + "batch=11", "batch = 11: the training set has 10 images"),
        (train, TRAIN + "monitor=test", "monitor = 'test': no such suite"),
        (train, TRAIN + "optimizer.name=adam", "did you mean 'adamw'"),
        (train, TRAIN + "crop_size=(32,64) --config.augment.transpose=0.5", "not square"),
        (train, DIVERGING, "not finite at step"),
        (train, DIVERGING + " --config.log_every=100", "not finite at step"),
        (train, TRAIN + "model.strides=8,4", "model.strides = (8, 4)"),
        (train, TRAIN + "model.strides=4,16", "consecutive strides"),
        (train, TRAIN + "model.dtype=bf16", "did you mean 'bfloat16'"),
        (train, TRAIN + "model.backbone=mobilenetv3/s-9", "did you mean"),
        (train, TRAIN + "model.detector=retinanet", "the fields of another detector"),
        (train, TRAIN + "data.format=vocc", "data.format = 'vocc': did you mean 'voc'"),
        (train, TRAIN + "seed=5000000000", "seed = 5000000000: give 0 to"),
        (train, TRAIN + "save_every=0", "save_every = 0"),
        (train, TRAIN + "schedule.steps=-1", "schedule.steps = -1"),
    ],
)
def test_invalid_input_is_one_message_and_exit_code_2(
    command, line, message, folder, noise_images, tmp_path, capsys
):
    argv = line.format(run=folder, images=noise_images, empty=tmp_path).split()
    assert errors.exit_code(lambda: command(argv)) == 2
    assert message in capsys.readouterr().err


def test_folder_belongs_to_a_config_from_its_first_checkpoint(tmp_path):
    """A run that failed before its first checkpoint does not occupy the folder."""
    folder = tmp_path / "run"
    run_folder.open_folder(folder, '{"lr": 1}')
    run_folder.open_folder(folder, '{"lr": 2}')
    (folder / "populations/0/checkpoints/3").mkdir(parents=True)
    run_folder.open_folder(folder, '{"lr": 2}')
    with pytest.raises(errors.UserError, match="lr: 2 in the folder, 1 in this config"):
        run_folder.open_folder(folder, '{"lr": 1}')


def test_config_json_round_trip():
    loaded = config.load(CONFIG)
    assert config.from_json(config.to_json(loaded)) == loaded


@pytest.mark.slow
def test_patience_stops_a_run_without_improvement(tmp_path, monkeypatch):
    """A constant score of 0.7, which float32 cannot represent, must not count as an improvement."""
    keys = [f"AP{n}/{name}" for n in ("", "50") for name in ("person", "vehicle", "animal")]
    same = {"AP": 0.5, "AP50": 0.7, **dict.fromkeys(keys, 0.6)}
    task = replace(detect.TASK, score=lambda *_: [same])
    monkeypatch.setattr(detect, "TASK", task)
    folder = tmp_path / "run"
    argv = ["--config", CONFIG, "--workdir", str(folder), "--config.patience=1"]
    assert train([*argv, "--config.eval_every=2"]) == 0
    steps = {int(r["step"]) for r in read_rows(folder / "metrics.csv") if r["split"] == "val"}
    assert steps == {2, 4}
