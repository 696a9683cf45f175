"""Evaluation in one pass: slices, suites of another set, corruptions; of a run and of a sweep."""

import json
import shutil

import numpy as np
import pytest

from tests.configs import slices_and_corruptions
from tests.data.layouts import source_files
from tinyjax import config as configs
from tinyjax import errors, evaluate
from tinyjax.data.corruptions.corrupt import corrupt
from tinyjax.errors import UserError
from tinyjax.metrics.slices import NUM_RESAMPLES
from tinyjax.reporting import tables
from tinyjax.run import run_folder
from tinyjax.run.csv_files import read_rows
from tinyjax.tasks import detect, get_task
from tinyjax.train import main as train_main
from tinyjax.training.validation import check_config

CONFIG = slices_and_corruptions.__file__
FIELDS = [{"time": "day", "altitude": 30}, {"time": "night", "altitude": 60}]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A set whose images have fields, and a set with the categories human (persons) and dog."""
    folder = tmp_path_factory.mktemp("sets")
    for name, splits in (("own", {"train": 8, "val": 6}), ("other", {"val": 5})):
        source_files.coco(folder / name, splits)
        for file in (folder / name / "annotations").iterdir():
            document = json.loads(file.read_text())
            for i, image in enumerate(document["images"]):
                image |= FIELDS[i % 2] if name == "own" else {}
            if name == "other":
                document["categories"] = [{"id": 1, "name": "human"}, {"id": 2, "name": "dog"}]
            file.write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module")
def run(sets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    argv = ["--config", f"{CONFIG}:{sets}", "--workdir", str(folder)]
    assert train_main(argv) == 0
    assert evaluate.main(["--workdir", str(folder)]) == 0
    return folder


def select_row(rows, **values):
    """The only row with these values; slice, corruption and severity are empty by default."""
    values = {"slice": "", "corruption": "", "severity": ""} | values
    (row,) = [row for row in rows if all(row[name] == value for name, value in values.items())]
    return row


def test_every_suite_slice_and_corruption_has_a_row(run):
    rows = read_rows(run / "evaluations" / "last.csv")
    assert [row["slice"] for row in rows if row["suite"] == "val"] == [
        "", "altitude=0-50", "altitude=50-101", "time=day", "time=night", "classes=person",
    ]  # fmt: skip
    assert [row["slice"] for row in rows if row["suite"] == "other"] == [""]
    noisy = [row for row in rows if row["suite"] == "noisy"]
    corruptions = ("gaussian_noise", "polarity")
    assert [(row["corruption"], row["severity"]) for row in noisy] == [
        ("", ""), *((corruption, str(s)) for corruption in corruptions for s in range(1, 6)),
    ]  # fmt: skip
    assert {row["images"] for row in noisy} == {"3.0"}
    # The two slices have the same images.
    assert (
        select_row(rows, suite="val", slice="time=day")["AP50"]
        == select_row(rows, suite="val", slice="altitude=0-50")["AP50"]
    )
    assert (
        select_row(rows, suite="val", slice="classes=person")["AP"]
        == select_row(rows, suite="val")["AP/person"]
    )
    assert select_row(rows, suite="other")["AP/car"] == "nan"


def test_scores_equal_those_of_training_which_skips_corrupted_suites(run):
    rows, results = (read_rows(run / name) for name in ("evaluations/last.csv", "results.csv"))
    assert [result["suite"] for result in results] == ["other", "val"]
    for result in results:
        row = select_row(rows, suite=result["suite"])
        for name in ("member", "suite", "AP", "AP50", "AP/person", "AR100", "boxes"):
            assert row[name] == result[name]


def test_resampled_scores_and_detections_are_saved(run):
    with np.load(run / "evaluations" / "last.npz") as file:
        (member,) = file["members"].tolist()
        parts = file["parts"].tolist()
        assert file["replicates"].shape == (1, len(parts), NUM_RESAMPLES)
        classes = [
            f"{suite}/classes={name}" for suite in ("other", "val") for name in ("person", "car")
        ]
        slices = ["val/altitude=0-50", "val/altitude=50-101", "val/time=day", "val/time=night"]
        assert sorted(parts) == sorted(["other", "val", *classes, *slices])
        assert str(file["score"]) == "AP50"
    assert member == run_folder.member_id({})
    with np.load(run / "evaluations" / "last" / member / "val.npz") as detections:
        assert detections["boxes"].shape == (len(detections["image"]), 4)
        assert detections["hits"].shape == detections["wrong"].shape == (6,)


def test_log_has_a_table_of_the_classes_of_each_suite(run, tmp_path, capsys):
    folder = shutil.copytree(run, tmp_path / "run")
    assert evaluate.main(["--workdir", str(folder), "--suite", "val", "--suite", "other"]) == 0
    output = capsys.readouterr().out
    car_rows = [line.split() for line in output.splitlines() if line.startswith("car ")]
    assert ["car", "3", "-"] in car_rows  # val, other
    assert "objects of class" in output
    assert "val/time=night" in output
    rows = read_rows(folder / "evaluations" / "last.csv")
    assert {row["suite"] for row in rows} == {"val", "other"}


def write_config(file, sets, *changes):
    """A config file: `slices_and_corruptions` with these statements applied to `config`."""
    lines = [
        "from tests.configs import slices_and_corruptions\n\n",
        "def get_config(arg=None):",
        f"    config = slices_and_corruptions.get_config({str(sets)!r}).unlock()",
        *(f"    {change}" for change in changes),
        "    return config\n",
    ]
    file.write_text("\n".join(lines))
    return str(file)


def test_suites_of_another_config(run, sets, tmp_path):
    config = write_config(
        tmp_path / "night.py",
        sets,
        "config.data.suites = {'night': {'split': 'val', 'limit': 4}}",
        "config.data.slices, config.monitor = {'altitude': ()}, 'night'",
    )
    folder = shutil.copytree(run, tmp_path / "run")
    assert evaluate.main(["--workdir", str(folder), "--suites", config]) == 0
    rows = read_rows(folder / "evaluations" / "last.csv")
    assert [(row["suite"], row["slice"], row["images"]) for row in rows] == [
        ("night", "", "4.0"), ("night", "altitude=30", "2.0"), ("night", "altitude=60", "2.0"),
    ]  # fmt: skip
    recorded = json.loads((folder / "evaluations" / "last.json").read_text())["config"]
    assert (recorded["monitor"], [*recorded["data"]["suites"]]) == ("night", ["night"])
    loaded = tables.read(folder, get_task)
    assert (loaded.suites, loaded.members[0].in_domain) == (("night",), "night")


def test_corrupted_images_are_those_of_the_clean_suite(sets):
    """With the same names, corrupted at their own size."""
    config = configs.load(f"{CONFIG}:{sets}")
    suite, classes = config.data.suites["noisy"], ("person", "car")
    clean = detect.load(config.data, suite, classes)
    for corruption, severity in (("polarity", 5), ("gaussian_noise", 2)):
        split = detect.load(config.data, suite, classes, (corruption, severity))
        assert split.names == clean.names
        images = zip(clean.names, split.inputs["image"], clean.inputs["image"], strict=True)
        for name, corrupted, image in images:
            np.testing.assert_array_equal(corrupted, corrupt(image, corruption, severity, name))
            assert (corrupted != image).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "metrics"),
    [("sweep_classifier", ("mean_class", "top1")), ("sweep", ("AP50", "AP", "AP/person"))],
)
def test_scores_of_a_sweep_equal_those_of_training(name, metrics, train_once, tmp_path):
    """metrics: names, the main score first."""
    folder = shutil.copytree(train_once(name) / "run", tmp_path / "sweep")
    assert evaluate.main(["--workdir", str(folder)]) == 0
    rows, results = (read_rows(folder / name) for name in ("evaluations/last.csv", "results.csv"))
    members = {result["member"] for result in results}
    suites = {result["suite"] for result in results}
    assert len(rows) == len(results) == len(members) * len(suites) > 5
    for result in results:
        row = select_row(rows, member=result["member"], suite=result["suite"])
        for metric in metrics:
            expected = pytest.approx(float(result[metric]), abs=0.02, nan_ok=True)
            assert float(row[metric]) == expected
    with np.load(folder / "evaluations" / "last.npz") as file:
        assert str(file["score"]) == metrics[0]
        parts = file["parts"].tolist()
        assert {part for part in parts if "/classes=" not in part} == suites
        assert file["replicates"].shape == (len(members), len(parts), NUM_RESAMPLES)
        for result in results:
            member = file["members"].tolist().index(result["member"])
            suite = parts.index(result["suite"])
            replicates = file["replicates"][member, suite]
            assert replicates.min() <= float(result[metrics[0]]) + 0.02
            assert replicates.max() >= float(result[metrics[0]]) - 0.02


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(monitor="noisy"), "corrupted suites are not scored in training"),
        (lambda c: c.data.train.update(corrupt="fog"), "data.train.corrupt: only suites"),
        (lambda c: c.data.suites.val.update(classes=("car",)), "data.suites.val.classes"),
        (lambda c: c.data.suites.noisy.update(corrupt=("fogg",)), "did you mean 'fog'"),
        (
            lambda c: c.data.suites.noisy.update(severities=(6,)),
            r"data.suites.noisy.severities = \(6,\): give some of \(1, 2, 3, 4, 5\)",
        ),
    ],
)
def test_mistakes_in_suites_are_reported_before_training(change, message):
    config = slices_and_corruptions.get_config("nowhere").unlock()
    check_config(config)
    change(config)
    with pytest.raises(UserError, match=message):
        check_config(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("config.data.common['channels'] = 3", "images with 3 channels, but the network reads 1"),
        ("config.monitor = 'day'", "monitor = 'day': no such suite"),
        ("config.data.suites = {'val': 5}", "data.suites.val = 5: give a dict"),
        ("config.data.suites.noisy.severities = 3", "data.suites.noisy.severities = 3: give some"),
        ("config.data.suites = {'val': {'corrupt': 3}}", "monitor = 'val': corrupted suites"),
        ("config.data.suites.noisy = {'corrupt': 3}", "data.suites.noisy.corrupt = 3: give names"),
        (
            "config.data.slices = {'time': ('a', 'b')}",
            "data.slices.time = ('a', 'b'): give ascending",
        ),
        ("config.data.slices = {'background': ()}", "data.slices.background: {"),
    ],
)
def test_mistakes_in_suites_of_another_config(run, sets, change, message, tmp_path, capsys):
    argv = ["--workdir", str(run), "--suites", write_config(tmp_path / "other.py", sets, change)]
    assert errors.exit_code(lambda: evaluate.main(argv)) == 2
    assert message in capsys.readouterr().err


def test_the_model_cannot_be_overridden(run, capsys):
    argv = ["--workdir", str(run), "--config.model.backbone=mobilenetv3/s-1"]
    assert errors.exit_code(lambda: evaluate.main(argv)) == 2
    assert "the weights belong to the trained network" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rename": {}}, r"none of the training classes \(person, car\)"),
        ({"rename": {"humans": "person"}}, "rename: no category 'humans'; did you mean 'human'"),
        ({"limit": -1}, "limit = -1"),
    ],
)
def test_mistakes_in_a_suite_of_another_set(sets, change, message):
    config = slices_and_corruptions.get_config(sets).unlock()
    config.data.suites.other = {**config.data.suites.other.to_dict(), **change}
    with pytest.raises(UserError, match=message):
        detect.load(config.data, config.data.suites.other, ("person", "car"))
