"""A run is resumed only on the data that it began with, wherever they are now."""

import contextlib
import json
import shutil

import pytest

from tests.configs import classifier, detector
from tests.data.layouts import source_files
from tests.test_classify import StopAtCheck
from tests.test_resume import read_contents
from tinyjax import config as configs
from tinyjax.errors import STOPPED, UserError
from tinyjax.evaluate import main as evaluate_main
from tinyjax.population.search_space import make_members
from tinyjax.rgn import main as rgn_main
from tinyjax.run.csv_files import read_rows
from tinyjax.train import train
from tinyjax.training import run_data

SPLITS = {"train": 6, "val": 3}
FIRST_LABELS = "labels/train/train_00.txt"


@pytest.fixture(autouse=True)
def _no_cached_data():
    run_data.load_described.cache_clear()


def make_config(source="data", data=(), **fields):
    config = detector.get_config()
    config.data.format = "auto"
    config.data.common = {"source": str(source), "size": (64, 96)}
    config.data.train, config.data.suites = {"split": "train"}, {"val": {"split": "val"}}
    config.data.update(dict(data))
    return configs.with_fields(config, fields)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A folder with "data", and with a "run" on these that was stopped after 3 steps."""
    folder = tmp_path_factory.mktemp("stopped")
    source_files.yolo(folder / "data", SPLITS)
    with contextlib.chdir(folder):  # the source is a relative path, so the folder can be copied
        assert train(make_config(), folder / "run", StopAtCheck(3)) == STOPPED
    return folder


@pytest.fixture(scope="module")
def finished(stopped):
    """A run on the data of `stopped` that was not stopped."""
    with contextlib.chdir(stopped):
        assert train(make_config(), stopped / "finished") == 0
    return stopped / "finished"


@pytest.fixture
def copy(stopped, tmp_path, monkeypatch):
    """A copy of `stopped`, which is the working directory."""
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(folder, config=None):
    """The message of a resume, which leaves the run as it is."""
    before = {file: file.read_bytes() for file in (folder / "run").glob("*.*")}
    before.pop(folder / "run" / "log.txt")
    with pytest.raises(UserError) as error:
        train(config or make_config(), folder / "run")
    assert before.items() <= {f: f.read_bytes() for f in (folder / "run").glob("*.*")}.items()
    return str(error.value).removeprefix(str(folder / "run") + ": ")


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def reorder_classes(data):
    """The same objects, exported with the classes in another order."""
    for file in data.glob("labels/*/*.txt"):
        lines = file.read_text().splitlines()
        file.write_text("\n".join(f"{1 - int(line[0])}{line[1:]}" for line in lines))
    edit(data / "data.yaml", "0: person\n  1: car", "0: car\n  1: person")


def rename_a_class(data):
    edit(data / "data.yaml", "car", "truck")


def add_images(data):
    for name in ("train_07", "train_08"):
        shutil.copy(data / "images/train/train_05.png", data / f"images/train/{name}.png")


def replace_an_image(data):
    (data / "images/train/train_05.png").rename(data / "images/train/other.png")


def move_a_box(data):
    edit(data / FIRST_LABELS, "0 0.", "0 0.1")


def change_the_class_of_a_box(data):
    edit(data / FIRST_LABELS, "0 0.", "1 0.")


def change_pixels(data):
    shutil.copy(data / "images/train/train_00.png", data / "images/train/train_03.png")


def remove_an_image_of_a_suite(data):
    (data / "images/val/val_02.png").unlink()


IMAGES = "; give the old images and labels, or another --workdir"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            reorder_classes,
            "the training classes were person, car and are now car, person; give the classes in "
            "the old order (data.common.classes), or another --workdir",
        ),
        (
            rename_a_class,
            "the training classes were person, car and are now person, truck; give the old classes "
            "(data.common.classes), or another --workdir",
        ),
        (add_images, "images: 2 added (train_07.png, train_08.png)" + IMAGES),
        (replace_an_image, "images: 1 added (other.png), 1 removed (train_05.png)" + IMAGES),
        (move_a_box, "other labels in 1 of 6 images (train_00.png)" + IMAGES),
        (change_the_class_of_a_box, "other labels in 1 of 6 images (train_00.png)" + IMAGES),
        (change_pixels, "other pixels in 1 of 6 images (train_03.png)" + IMAGES),
        (remove_an_image_of_a_suite, "images: 1 removed (val_02.png)" + IMAGES),
    ],
)
def test_resume_on_other_data_is_refused(change, message, copy):
    change(copy / "data")
    if "training classes" not in message:
        split = "suites.val" if "val_02" in message else "train"
        message = f"data.{split} is not what the run began with: {message}"
    assert refusal(copy) == message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"train": {"split": "val"}}, "data.train.split: train in the folder, val in this config"),
        ({"train": {"limit": 5}}, "data.train.limit: absent in the folder, 5 in this config"),
        ({"stream": True}, "data.stream: False in the folder, True in this config"),
        ({"suites": {"more": {}}}, "a group without fields"),
    ],
)
def test_other_fields_of_the_data_are_another_config(data, message, copy):
    assert message in refusal(copy, make_config(data=data))


@pytest.mark.slow
def test_moved_data_in_another_layout_and_order_of_classes_end_as_if_not_moved(
    finished, copy, capsys
):
    """Sources and classes may change if images and labels do not."""
    reorder_classes(copy / "data")
    source = source_files.zip_folder(copy / "data", copy / "moved.zip")
    shutil.rmtree(copy / "data")
    assert "were person, car and are now car, person" in refusal(copy, make_config(source))
    moved = make_config(source, {"common": {"classes": ("person", "car")}})
    capsys.readouterr()
    assert train(moved, copy / "run") == 0
    output = capsys.readouterr().out
    assert "resuming at step 3 of 6" in output
    assert f"data.common.source: data in the folder, {source} in this config" in output
    contents, expected = read_contents(copy / "run"), read_contents(finished)
    assert json.loads(contents["config.json"]) == json.loads(configs.to_json(moved))
    different = {name for name in expected if contents[name] != expected[name]}
    assert {name.partition(".")[2] for name in different} == {"json"}  # they hold the source


def test_other_data_in_another_place_are_refused(copy):
    source_files.yolo(copy / "other", {"train": 7, "val": 3})
    assert "images: 1 added (train_06.png)" in refusal(copy, make_config("other"))
    before = json.loads((copy / "run" / "config.json").read_bytes())
    assert before["data"]["common"]["source"] == "data"


@pytest.mark.slow
def test_run_without_a_record_gets_one(copy):
    """An earlier version has not written it."""
    file = copy / "run" / "data.json"
    recorded = file.read_bytes()
    file.unlink()
    message = refusal(copy, make_config(copy / "data"))
    assert f"data.common.source: data in the folder, {copy / 'data'} in this config" in message
    assert not file.exists()
    assert train(make_config(), copy / "run", [1]) == STOPPED
    assert file.read_bytes() == recorded
    file.write_text("{}")
    assert f"{file}: not a record of a run's data" in refusal(copy)


def test_run_that_failed_before_its_first_checkpoint_may_get_other_data(copy):
    shutil.rmtree(copy / "run" / "populations")
    move_a_box(copy / "data")
    assert train(make_config(), copy / "run", [1]) == STOPPED


@pytest.mark.slow
def test_phases_record_their_own_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source_files.yolo(tmp_path / "data", SPLITS)
    steps = {"schedule.steps": 3, "schedule.warmup": 1}
    config = make_config(phases=({**steps, "data.train.split": "val", "batch": 2}, steps))
    assert train(config, tmp_path / "run", StopAtCheck(6)) == STOPPED
    counts = [
        json.loads((tmp_path / "run" / phase / "data.json").read_bytes())["splits"]["train"]
        for phase in ("phase1", "phase2")
    ]
    assert [count["images"] for count in counts] == [3, 6]
    add_images(tmp_path / "data")
    run_data.load_described.cache_clear()
    with pytest.raises(UserError, match=r"phase2: data\.train is not .*: images: 2 added"):
        train(config, tmp_path / "run")


@pytest.mark.slow
def test_members_of_other_data_have_their_own_record(noise_images, tmp_path):
    config, folder = classifier.get_config(str(noise_images)), tmp_path / "run"
    config.schedule.steps, config.schedule.warmup = 1, 0
    config.data.train = {"split": "train", "limit": 0}
    points = [{"data.train.limit": limit} for limit in (0, 6)]
    assert train(config, folder, members=make_members(config, points)) == 0
    assert len(read_rows(folder / "results.csv")) == 2
    assert not (folder / "data.json").exists()
    records = [json.loads(f.read_bytes()) for f in sorted(folder.glob("populations/*/data.json"))]
    assert [record["splits"]["train"]["images"] for record in records] == [8, 6]


@pytest.mark.slow
def test_weights_keep_their_classes(finished, copy):
    """After an export with another order, scores are the same, and gradients are not measured."""
    folder = shutil.copytree(finished, copy / "finished", dirs_exist_ok=True)
    assert evaluate_main(["--workdir", str(folder)]) == 0
    scores = (folder / "evaluations" / "last.csv").read_bytes()
    reorder_classes(copy / "data")
    assert evaluate_main(["--workdir", str(folder)]) == 0
    assert (folder / "evaluations" / "last.csv").read_bytes() == scores
    with pytest.raises(UserError, match="classes were person, car and are now car, person"):
        rgn_main(["--workdir", str(folder)])
