"""A user's own files, end to end: every layout trains to the same weights; what may go wrong."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from tests.data.layouts import source_files
from tinyjax import errors, train
from tinyjax.run import runtime

ROOT = Path(__file__).parents[1]
SMALL = [
    *("--config.model.backbone=mobilenetv3/s-6", "--config.crop_size=(64,64)", "--config.batch=4"),
    *("--config.schedule.steps=4", "--config.schedule.warmup=2", "--config.log_every=1"),
    *("--config.save_every=4", "--config.eval_every=4"),
]
LAYOUTS = {"coco": source_files.coco, "voc": source_files.voc, "yolo": source_files.yolo}


def arguments(source, workdir):
    return ["--config", f"configs/own.py:source={source}", "--workdir", str(workdir), *SMALL]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    for name, write in LAYOUTS.items():
        source = write(folder / "data" / name, {"train": 6, "val": 3})
        # Classes go by the source's order, and VOC has none but the alphabet's.
        argv = arguments(f"{source},classes=person+car", folder / name)
        assert train.main(argv) == 0
    return folder


def test_every_layout_trains_to_the_same_weights(runs):
    files = [next((runs / name / "weights").glob("*[0-9a-f].safetensors")) for name in LAYOUTS]
    first, *others = (file.read_bytes() for file in files)
    assert all(other == first for other in others)


def test_the_log_begins_with_what_is_run_on_what(runs):
    text = (runs / "voc" / "log.txt").read_text()
    for words in (
        " on cpu, 1 x cpu, ",
        "GiB of memory free",
        "training: 6 images, person 6, car 3; 1 without objects",
        "near-duplicates of training images",
        "mobilenetv3/s-6, 25,",
        "multiply-adds a frame of 96 x 64",
        "trains: all parameters from scratch, seed 0, 4 steps of 4 windows of 64 x 64",
        f"writes to: {runs / 'voc'}",
    ):
        assert words in text, words


class Program:
    """As a compiled step describes itself: 8 MiB beyond its arguments."""

    def memory_analysis(self):
        return SimpleNamespace(
            temp_size_in_bytes=7 * 2**20, output_size_in_bytes=2**21, alias_size_in_bytes=2**20
        )


@pytest.mark.parametrize(
    ("share", "advice"), [(0.6, "batch = 2 would fit"), (0.01, "not even batch = 1 would")]
)
def test_too_little_memory_names_the_batch_that_would_fit(share, advice, monkeypatch):
    monkeypatch.setattr(runtime, "memory", lambda: int(share * 2**23))
    with pytest.raises(errors.UserError, match=f"batch = 4: a step needs 0.01 GiB, .*{advice}"):
        runtime.check_step_fits(Program(), 4)


@pytest.mark.parametrize(
    ("share", "advice"),
    [
        (0.6, "6 members at once: .*; --member-batching chunks:3 would fit"),
        (0.1, "batch = 4: .*; batch = 2 would fit"),
    ],
)
def test_too_little_memory_for_a_population_names_the_chunk(share, advice, monkeypatch):
    monkeypatch.setattr(runtime, "memory", lambda: int(share * 2**23))
    with pytest.raises(errors.UserError, match=advice):
        runtime.check_step_fits(Program(), 4, members=6)


def test_a_run_that_does_not_fit_ends_before_its_first_step(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runtime, "memory", lambda: 2**20)
    argv = arguments(runs / "data" / "coco", tmp_path / "run")
    assert errors.exit_code(lambda: train.main(argv)) == 2
    assert capsys.readouterr().err.startswith("error: batch = 4: a step needs ")


@pytest.mark.slow
def test_a_full_disk_costs_nothing_that_was_saved(runs, tmp_path):
    """No file may grow past 300 kB: the first checkpoint cannot be written; then it can."""
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300000, 300000))\n"
        "from tinyjax import errors, train\n"
        "sys.exit(errors.exit_code(lambda: train.main(sys.argv[1:])))\n"
    )
    argv = arguments(f"{runs / 'data' / 'coco'},classes=person+car", tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "step 4 could not be saved" in done.stderr
    assert "make room, then run the same command again" in done.stderr
    assert "Traceback" not in done.stderr
    assert train.main(argv) == 0
    ours, theirs = (
        next((folder / "weights").glob("*[0-9a-f].safetensors")).read_bytes()
        for folder in (tmp_path / "run", runs / "coco")
    )
    assert ours == theirs


@pytest.mark.parametrize("kind", ["a file", "no right to write"])
def test_a_folder_that_cannot_be_made(kind, runs, tmp_path, capsys):
    place = tmp_path / "taken"
    if kind == "a file":
        place.write_text("")
    else:
        place = Path("/proc/run")
    argv = arguments(runs / "data" / "coco", place / "run")
    assert errors.exit_code(lambda: train.main(argv)) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {place}")
    assert said.count("\n") == 1


def test_a_device_that_runs_out_of_memory_is_one_message(capsys):
    """For real: more than any machine has."""

    def main():
        return jax.numpy.zeros((2**40,)).block_until_ready() and 0

    assert errors.exit_code(main) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: RESOURCE_EXHAUSTED")
    assert said.endswith("; give a smaller batch, crop or network\n")
