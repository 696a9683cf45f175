"""Evaluation of suites of several kinds, in one pass: slices, other sets, corruptions; of a run and
of a sweep.
"""

import csv
import json
import shutil

import numpy as np
import pytest

from tests.configs import slices_and_corruptions, sweep
from tests.data.layouts import source_files
from tinyjax import config as configs
from tinyjax import errors, evaluate, train
from tinyjax.config.validation import check
from tinyjax.data.corruptions.corrupt import corrupt
from tinyjax.errors import UserError
from tinyjax.metrics.slices import REPLICATES
from tinyjax.reporting import tables
from tinyjax.run import run_folder
from tinyjax.tasks import detect

CONFIG = slices_and_corruptions.__file__
FIELDS = [{"time": "day", "altitude": 30}, {"time": "night", "altitude": 60}]


def rows(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A set whose images have fields, and another of persons, there called human, and dogs."""
    folder = tmp_path_factory.mktemp("sets")
    for place, splits in (("own", {"train": 8, "val": 6}), ("other", {"val": 5})):
        source_files.coco(folder / place, splits)
        for file in (folder / place / "annotations").iterdir():
            document = json.loads(file.read_text())
            for i, image in enumerate(document["images"]):
                image |= FIELDS[i % 2] if place == "own" else {}
            if place == "other":
                document["categories"] = [{"id": 1, "name": "human"}, {"id": 2, "name": "dog"}]
            file.write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module")
def run(sets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    argv = ["--config", f"{CONFIG}:{sets}", "--workdir", str(folder)]
    assert train.main(argv) == 0
    assert evaluate.main(["--workdir", str(folder)]) == 0
    return folder


def of(table, **wanted):
    """The only row that is so; what is not said is empty."""
    wanted = {"slice": "", "corruption": "", "severity": ""} | wanted
    (row,) = [r for r in table if all(r[name] == value for name, value in wanted.items())]
    return row


def test_a_row_for_every_suite_slice_and_corruption(run):
    table = rows(run / "evaluations" / "last.csv")
    assert [r["slice"] for r in table if r["suite"] == "val"] == [
        "", "altitude=0-50", "altitude=50-101", "time=day", "time=night", "classes=person",
    ]  # fmt: skip
    assert [r["slice"] for r in table if r["suite"] == "other"] == [""]
    noisy = [(r["corruption"], r["severity"]) for r in table if r["suite"] == "noisy"]
    kinds = ("gaussian_noise", "polarity")
    assert noisy == [("", ""), *((kind, str(s)) for kind in kinds for s in range(1, 6))]
    assert {r["images"] for r in table if r["suite"] == "noisy"} == {"3.0"}
    # the same images under another name
    assert (
        of(table, suite="val", slice="time=day")["AP50"]
        == of(table, suite="val", slice="altitude=0-50")["AP50"]
    )
    assert (
        of(table, suite="val", slice="classes=person")["AP"] == of(table, suite="val")["AP/person"]
    )
    assert of(table, suite="other")["AP/car"] == "nan"


def test_it_repeats_the_scores_of_training_which_leaves_corruptions_out(run):
    table = rows(run / "evaluations" / "last.csv")
    ended = rows(run / "results.csv")
    assert [row["suite"] for row in ended] == ["other", "val"]
    for row in ended:
        again = of(table, suite=row["suite"])
        assert {again[name] for name in ("member", "suite")} == {row["member"], row["suite"]}
        for name in ("AP", "AP50", "AP/person", "AR100", "boxes"):
            assert again[name] == row[name]


def test_resamples_and_what_was_seen_are_kept(run):
    with np.load(run / "evaluations" / "last.npz") as found:
        (member,) = found["members"].tolist()
        assert found["replicates"].shape == (1, 7, REPLICATES)
        assert found["parts"].tolist()[:2] == ["other", "val"]
        assert "val/time=day" in found["parts"].tolist()
        assert str(found["score"]) == "AP50"
    assert member == run_folder.member_id({})
    with np.load(run / "evaluations" / "last" / member / "val.npz") as seen:
        assert seen["boxes"].shape == (len(seen["image"]), 4)
        assert seen["hits"].shape == seen["wrong"].shape == (6,)


def test_what_matched_by_name_is_printed(run, capsys):
    assert evaluate.main(["--workdir", str(run), "--suite", "val", "--suite", "other"]) == 0
    said = capsys.readouterr().out
    table = [line.split() for line in said.splitlines() if line.startswith("car ")]
    assert ["car", "3", "-"] in table  # val's, and the other set's
    assert "objects of class" in said
    assert "val/time=night" in said
    again = rows(run / "evaluations" / "last.csv")
    assert {row["suite"] for row in again} == {"val", "other"}
    assert evaluate.main(["--workdir", str(run)]) == 0  # as it was


def test_suites_may_come_from_another_config(run, sets, tmp_path):
    """What is asked of a run is asked after it was trained, too."""
    other = tmp_path / "asked.py"
    other.write_text(
        "from tests import tiny_robust\n\n\ndef get_config(arg=None):\n"
        f"    config = tiny_robust.get_config({str(sets)!r})\n"
        "    config.data.suites = {'night': {'split': 'val', 'limit': 4}}\n"
        "    config.data.slices, config.monitor = {'altitude': ()}, 'night'\n"
        "    return config\n"
    )
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    assert evaluate.main(["--workdir", str(folder), "--suites", str(other)]) == 0
    table = rows(folder / "evaluations" / "last.csv")
    assert [(row["suite"], row["slice"], row["images"]) for row in table] == [
        ("night", "", "4.0"), ("night", "altitude=30", "2.0"), ("night", "altitude=60", "2.0"),
    ]  # fmt: skip
    asked = json.loads((folder / "evaluations" / "last.json").read_text())["config"]
    assert (asked["monitor"], [*asked["data"]["suites"]]) == ("night", ["night"])
    found = tables.read(folder)
    assert (found.suites, found.members[0].home) == (("night",), "night")


def test_a_corruption_changes_the_score_and_polarity_is_no_other_images(run, sets):
    """The corrupted images are those of the clean row, at their own size and by their names."""
    config = configs.load(f"{CONFIG}:{sets}")
    suite, classes = config.data.suites["noisy"], ("person", "car")
    clean = detect.load(config.data, suite, classes)
    for pair in (("polarity", 5), ("gaussian_noise", 2)):
        split = detect.load(config.data, suite, classes, pair)
        assert split.names == clean.names
        for name, image, before in zip(clean.names, split.images, clean.images, strict=True):
            np.testing.assert_array_equal(image, corrupt(before, *pair, name))
            assert (image != before).any()


def test_a_sweep_is_evaluated_as_its_members_were_scored(tmp_path):
    folder = tmp_path / "sweep"
    argv = ["--config", sweep.__file__, "--workdir", str(folder)]
    assert train.main([*argv, "--sweep.only", "optimizer.lr=0.001"]) == 0
    assert evaluate.main(["--workdir", str(folder)]) == 0
    table, ended = rows(folder / "evaluations" / "last.csv"), rows(folder / "results.csv")
    assert len(table) == len(ended) == 8
    for row in ended:
        again = of(table, member=row["member"], suite=row["suite"])
        for name in ("AP", "AP50", "AP/person"):
            assert float(again[name]) == pytest.approx(float(row[name]), abs=0.02, nan_ok=True)
    with np.load(folder / "evaluations" / "last.npz") as found:
        assert found["replicates"].shape == (4, 2, REPLICATES)
        for row in ended:
            i = found["members"].tolist().index(row["member"])
            own = found["replicates"][i, found["parts"].tolist().index(row["suite"])]
            assert own.min() <= float(row["AP50"]) + 0.02
            assert own.max() >= float(row["AP50"]) - 0.02


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(monitor="noisy"), "corrupted suites are not scored in training"),
        (lambda c: c.data.train.update(corrupt="fog"), "data.train.corrupt: only a suite"),
        (lambda c: c.data.suites.val.update(classes=("car",)), "data.suites.val.classes"),
        (lambda c: c.data.suites.noisy.update(corrupt=("fogg",)), "did you mean 'fog'"),
        (
            lambda c: c.data.suites.noisy.update(severities=(6,)),
            r"data.suites.noisy.severities = \(6,\): give some of \(1, 2, 3, 4, 5\)",
        ),
    ],
)
def test_mistakes_in_suites_are_found_before_training(change, message):
    config = slices_and_corruptions.get_config("nowhere").unlock()
    check(config)
    change(config)
    with pytest.raises(UserError, match=message):
        check(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("config.data.common['channels'] = 3", "images of 3 channels, the network takes 1"),
        ("config.monitor = 'day'", "monitor = 'day': no such suite"),
        ("config.data.suites = {'val': 5}", "data.suites.val = 5: give a dict"),
        ("config.data.suites.noisy.severities = 3", "data.suites.noisy.severities = 3: give some"),
        ("config.data.suites = {'val': {'corrupt': 3}}", "monitor = 'val': corrupted suites"),
        ("config.data.suites.noisy = {'corrupt': 3}", "data.suites.noisy.corrupt = 3: give names"),
        ("config.data.slices = {'time': ('a', 'b')}", "data.slices.time = ('a', 'b'): give edges"),
        ("config.data.slices = {'background': ()}", "data.slices.background: {"),
    ],
)
def test_mistakes_in_asked_suites_are_one_message(run, sets, change, message, tmp_path, capsys):
    other = tmp_path / "asked.py"
    other.write_text(
        "from tests import tiny_robust\n\n\ndef get_config(arg=None):\n"
        f"    config = tiny_robust.get_config({str(sets)!r}).unlock()\n    {change}\n"
        "    return config\n"
    )
    argv = ["--workdir", str(run), "--suites", str(other)]
    assert errors.exit_code(lambda: evaluate.main(argv)) == 2
    assert message in capsys.readouterr().err


def test_the_network_is_the_one_that_was_trained(run, capsys):
    argv = ["--workdir", str(run), "--config.model.backbone=mobilenetv3/s-1"]
    assert errors.exit_code(lambda: evaluate.main(argv)) == 2
    assert "weights are of the network that was trained" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rename": {}}, r"none of the classes of training \(person, car\)"),
        ({"rename": {"humans": "person"}}, "rename: no category 'humans'; did you mean 'human'"),
        ({"limit": -1}, "limit = -1"),
    ],
)
def test_mistakes_about_another_set(sets, change, message):
    config = slices_and_corruptions.get_config(sets).unlock()
    config.data.suites.other = {**config.data.suites.other.to_dict(), **change}
    with pytest.raises(UserError, match=message):
        detect.load(config.data, config.data.suites.other, ("person", "car"))
