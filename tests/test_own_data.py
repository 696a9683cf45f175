"""A user's files end to end: all layouts train to the same weights; errors of the machine."""

import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from tests.configs import classifier
from tests.data.layouts import source_files
from tests.tiny_backbones import TINY
from tinyjax import errors
from tinyjax.run import runtime
from tinyjax.train import main as train_main

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
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, write in LAYOUTS.items():
        write(folder / name, {"train": 6, "val": 3})
    return folder


@pytest.fixture(scope="module")
def own_run(data, tmp_path_factory):
    """`own_run(layout) -> folder` of a run, which is trained once."""
    folder = tmp_path_factory.mktemp("own")

    @cache
    def train(layout):
        # By default classes are in the source's order, which for VOC is alphabetical.
        argv = arguments(f"{data / layout},classes=person+car", folder / layout)
        assert train_main(argv) == 0
        return folder / layout

    return train


def read_weights_file(run):
    return next((run / "weights").glob("*[0-9a-f].safetensors")).read_bytes()


@pytest.mark.slow  # their equal arrays are tested in data/layouts/test_layouts.py
def test_all_layouts_train_to_the_same_weights(own_run):
    first, *others = (read_weights_file(own_run(layout)) for layout in LAYOUTS)
    assert all(other == first for other in others)


def check_log(run, *words):
    text = (run / "log.txt").read_text()
    expected = (" on cpu, 1 x cpu, ", "GiB of memory free", "near-duplicates of training images")
    for word in (*expected, f"writes to: {run}", *words):
        assert word in text, word


def test_log_begins_with_machine_data_and_model(train_once):
    check_log(
        train_once("detector") / "run",
        "training: 10 images, person 4, vehicle 8, animal 8",
        f"model: {TINY}, ",
        "multiply-adds per image of 64 x 64",
        "trains all parameters from scratch, seed 0, 6 steps of 4 windows of 64 x 64",
    )


@pytest.mark.slow
def test_log_counts_images_without_objects(own_run):
    check_log(
        own_run("voc"),
        "training: 6 images, person 6, car 3; 1 without objects",
        "mobilenetv3/s-6, 25,",
        "multiply-adds per image of 96 x 64",
        "trains all parameters from scratch, seed 0, 4 steps of 4 windows of 64 x 64",
    )


class Program:
    """The memory analysis of a compiled step: 8 MiB beyond its arguments."""

    def memory_analysis(self):
        return SimpleNamespace(
            temp_size_in_bytes=7 * 2**20, output_size_in_bytes=2**21, alias_size_in_bytes=2**20
        )


@pytest.mark.parametrize(
    ("fraction", "advice"), [(0.6, "batch = 2 would fit"), (0.01, "batch = 1 would not fit either")]
)
def test_memory_error_names_a_batch_that_fits(fraction, advice, monkeypatch):
    monkeypatch.setattr(runtime, "free_memory", lambda: int(fraction * 2**23))
    with pytest.raises(errors.UserError, match=f"batch = 4: a step needs 0.01 GiB, .*{advice}"):
        runtime.check_step_fits(Program(), 4)


@pytest.mark.parametrize(
    ("fraction", "advice"),
    [
        (0.6, "6 members at once: .*; --member-batching chunks:3 would fit"),
        (0.1, "batch = 4: .*; batch = 2 would fit"),
    ],
)
def test_memory_error_names_member_chunks_that_fit(fraction, advice, monkeypatch):
    monkeypatch.setattr(runtime, "free_memory", lambda: int(fraction * 2**23))
    with pytest.raises(errors.UserError, match=advice):
        runtime.check_step_fits(Program(), 4, members=6)


def test_run_that_does_not_fit_ends_before_its_first_step(
    noise_images, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(runtime, "free_memory", lambda: 2**16)
    argv = ["--config", f"{classifier.__file__}:{noise_images}", "--workdir", str(tmp_path / "run")]
    assert errors.exit_code(lambda: train_main(argv)) == 2
    assert capsys.readouterr().err.startswith("error: batch = 4: a step needs ")


@pytest.mark.slow
def test_run_continues_after_a_full_disk(data, own_run, tmp_path):
    """With a file size limit of 200 kB the first checkpoint cannot be written; then it can.

    The largest file of a checkpoint has 280 kB or more, the figures before it less than 90 kB.
    """
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200000, 200000))\n"
        "from tinyjax import errors\n"
        "from tinyjax.train import main\n"
        "sys.exit(errors.exit_code(lambda: main(sys.argv[1:])))\n"
    )
    argv = arguments(f"{data / 'coco'},classes=person+car", tmp_path / "run")
    result = subprocess.run(
        [sys.executable, "-c", code, *argv], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2, result.stderr
    assert "step 4 could not be saved" in result.stderr
    assert "free some space, then run the same command again" in result.stderr
    assert "Traceback" not in result.stderr
    assert train_main(argv) == 0
    assert read_weights_file(tmp_path / "run") == read_weights_file(own_run("coco"))


@pytest.mark.parametrize("obstacle", ["a file", "no right to write"])
def test_folder_that_cannot_be_created(obstacle, data, tmp_path, capsys):
    folder = tmp_path / "taken"
    if obstacle == "a file":
        folder.write_text("")
    else:
        folder = Path("/proc/run")
    argv = arguments(data / "coco", folder / "run")
    assert errors.exit_code(lambda: train_main(argv)) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {folder}")
    assert message.count("\n") == 1


def test_out_of_memory_is_a_one_line_error(capsys):
    """An allocation larger than any machine's memory."""

    def main():
        return jax.numpy.zeros((2**40,)).block_until_ready() and 0

    assert errors.exit_code(main) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: RESOURCE_EXHAUSTED")
    assert message.endswith("; use a smaller batch, crop or network\n")
