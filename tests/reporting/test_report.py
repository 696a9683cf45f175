import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit

from tests.reporting.reports import CLASSES, IMAGES, SIZES, World, study, write
from tinyjax import report
from tinyjax.data.synthetic import dataset
from tinyjax.errors import UserError, exit_code
from tinyjax.reporting import (
    curves,
    findings,
    galleries,
    heatmaps,
    page,
    run_folders,
    summary,
    tables,
)
from tinyjax.run.csv_files import read_rows, write_rows

LITTLE = {"images": 60, "resamples": 100, "steps": (), "corrupt": False}
NUMBER = r"(-?\d\.\d{3}) \[(-?\d\.\d{3}), (-?\d\.\d{3})\]"


def said(folder):
    found = tables.read(folder)
    return " ".join(findings.findings(found, summary.summarize(found)))


def figures_of(folder):
    return {path.stem for path in (folder / "figures" / "report").iterdir()}


def test_a_single_run_has_all_that_one_member_can_have(tmp_path):
    write(tmp_path, sizes=["s-6"], starts=[""], seeds=1)
    assert report.main([str(tmp_path)]) == 0
    assert figures_of(tmp_path) == {
        "scores", "corruptions", "classes", "calibration", "learning", "images0", "images1",
    }  # fmt: skip
    html = (tmp_path / "report.html").read_text()
    assert "python -m tinyjax.train --config configs/x.py --workdir runs/x" in html
    assert "trained with one seed" in html
    assert html.count("data:image/png;base64,") == 7


def test_a_sweep_has_every_figure_but_those_of_one_member_and_of_several_training_sets(tmp_path):
    write(tmp_path, World(gain=0.05), sizes=list(SIZES)[:4], seeds=2, **LITTLE | {"steps": (1, 2)})
    stale = tmp_path / "figures" / "report" / "old.png"
    stale.parent.mkdir(parents=True)
    stale.touch()
    assert report.main([str(tmp_path)]) == 0
    assert figures_of(tmp_path) == {
        "size", "shift", "gain", "rgn", "slices", "classes", "calibration", "learning", "images0",
        "images1",
    }  # fmt: skip


def test_a_study_joins_runs_whose_members_have_the_same_names(tmp_path):
    study(tmp_path, sizes=["s-6", "s-1"], seeds=2, sets=("a", "b"), **LITTLE)
    found = tables.read(tmp_path)
    assert len({member.id for member in found.members}) == 8
    assert len({member.key for member in found.members}) == 16
    assert [member.run for member in found.members] == ["a"] * 8 + ["b"] * 8
    assert {member.trained_on for member in found.members} == {"a: synthetic", "b: synthetic"}
    assert heatmaps.matrix(found, summary.summarize(found)) is not None
    alone = tables.read(tmp_path / "a")
    assert heatmaps.matrix(alone, summary.summarize(alone)) is None


def test_a_study_may_have_a_run_without_a_suite(tmp_path):
    study(tmp_path, sizes=["s-6", "s-3", "s-1"], seeds=2, sets=("a", "b"), **LITTLE)
    file = tmp_path / "b" / "evaluations" / "last.csv"
    rows = [row for row in read_rows(file) if row["suite"] != "shift"]
    write_rows(file, rows, rows[0])
    with np.load(file.with_suffix(".npz")) as arrays:
        kept = dict(arrays)
    there = np.char.startswith(kept["parts"], "val")
    kept |= {"parts": kept["parts"][there], "replicates": kept["replicates"][:, there]}
    np.savez(file.with_suffix(".npz"), **kept)
    found = tables.read(tmp_path)
    whole = summary.summarize(found)
    assert all(np.isnan(whole.numbers[m.key].gap) == (m.run == "b") for m in found.members)
    alone = tables.read(tmp_path / "a")
    pick = [re.search(rf"the score falls by {NUMBER}", " ".join(s)) for s in (
        findings.findings(found, whole), findings.findings(alone, summary.summarize(alone)),
    )]  # fmt: skip
    assert pick[0][0] == pick[1][0]


def test_numbers_of_a_member_are_those_of_the_files(tmp_path):
    ids = write(tmp_path, sizes=["s-4", "s-2", "s-1"], starts=[""], seeds=2)
    id = ids[0]
    rows = [row for row in read_rows(tmp_path / "evaluations" / "last.csv") if row["member"] == id]
    score = {
        (r["suite"], r["slice"], r["corruption"], r["severity"]): float(r["AP50"]) for r in rows
    }
    found = tables.read(tmp_path)
    numbers = summary.summarize(found).numbers[id]
    inside, shifted = score["val", "", "", ""], score["shift", "", "", ""]
    assert (numbers.home, numbers.shifted) == (inside, shifted)
    assert numbers.gap == pytest.approx(inside - shifted)
    assert numbers.drop == pytest.approx(1 - shifted / inside)
    slices = {f"{a}/{b}": v for (a, b, _, _), v in score.items() if b}
    assert numbers.worst == min(slices.items(), key=lambda one: one[1])
    corrupted = [v for (_, _, c, _), v in score.items() if c]
    assert numbers.mpc == pytest.approx(np.mean(corrupted))
    assert numbers.rpc == pytest.approx(np.mean(corrupted) / score["val-c", "", "", ""])
    # Four members of the two other sizes carry the line.
    others = found.members[2:]
    inner, outer = (
        logit([found.of(m, tables.Part(suite)) for m in others]) for suite in ("val", "shift")
    )
    line = np.polyfit(inner, outer, 1)
    assert numbers.effective == pytest.approx(shifted - expit(np.polyval(line, logit(inside))))


def test_a_suite_of_fewer_classes_is_compared_with_these_alone(tmp_path):
    (id,) = write(tmp_path, sizes=["s-2"], starts=[""], seeds=1, **LITTLE)
    file = tmp_path / "evaluations" / "last.csv"
    rows = read_rows(file)
    (whole,) = (row for row in rows if row["suite"] == "val" and not row["slice"])
    (shifted,) = (row for row in rows if row["suite"] == "shift" and not row["slice"])
    shifted["AP50/animal"] = "nan"
    rows.append({**whole, "slice": "classes=person+vehicle", "AP50": "0.9"})
    rows.append({**whole, "slice": "classes=person", "AP50": "0.1"})
    write_rows(file, rows, rows[0])
    numbers = summary.summarize(tables.read(tmp_path)).numbers[id]
    assert numbers.home == float(whole["AP50"])
    assert numbers.gap == pytest.approx(0.9 - float(shifted["AP50"]))
    assert not numbers.worst[0].startswith("val/classes")


def test_the_last_phase_counts(tmp_path):
    (id,) = write(tmp_path, sizes=["s-2"], starts=[""], seeds=1, **LITTLE)
    for name in ("members", "results"):
        rows = read_rows(tmp_path / f"{name}.csv")
        both = [{"phase": 1, **row, "seed": 7, "diverged_at": 5} for row in rows]
        both += [{"phase": 2, **row, "seed": 8, "diverged_at": -1} for row in rows]
        write_rows(tmp_path / f"{name}.csv", both, both[0])
    (member,) = tables.read(tmp_path).members
    assert (member.id, member.seed, member.diverged_at) == (id, 8, -1)


def test_a_start_is_the_last_part_of_its_path_and_pairs_agree_in_all_else(tmp_path):
    write(tmp_path, sizes=["s-2", "s-1"], seeds=2, varied={"freeze": "backbone"}, **LITTLE)
    members = tables.read(tmp_path).members
    assert {member.start for member in members} == {"scratch", "caltech101"}
    found = summary.pairs(members)["caltech101"]
    assert len(found) == 4
    for own, other in found:
        assert own._replace(key="", id="", start="", rgn=0) == other._replace(
            key="", id="", start="", rgn=0
        )
    odd = [m._replace(varied={"freeze": m.start}) for m in members]
    assert summary.pairs(odd) == {}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"format": "coco", "common": {"source": "a/b.zip"}, "train": {"split": "s"}}, "b s"),
        ({"format": "synthetic", "train": {"n": 3}}, "synthetic"),
    ],
)
def test_trained_on(config, words):
    assert run_folders.trained_on({"data": config}) == words


def test_findings_state_a_known_effect_with_its_interval(tmp_path):
    write(tmp_path, World(gain=0.1), sizes=["s-2", "s-1"], seeds=4, **LITTLE)
    sentence = re.search(r"caltech101 gains (.*?) on val", said(tmp_path))
    value, low, high = map(float, re.fullmatch(NUMBER, sentence[1]).groups())
    assert low < 0.1 < high
    assert low < value < high
    assert high - low < 0.1


def test_findings_say_of_a_known_null_that_it_is_not_shown(tmp_path):
    denied = []
    for draw in range(20):
        folder = tmp_path / str(draw)
        write(folder, World(), "classify", ["s-2", "s-1"], seeds=4, draw=draw, **LITTLE)
        words = said(folder)
        denied.append("not shown to gain or lose on val" in words)
        assert denied[-1] != bool(re.search(r"caltech101 (gains|loses) \S+ \[.*?\] on val", words))
    assert sum(denied) >= 17  # of 20, where 19 are expected


def test_findings_on_a_shift_that_takes_nothing(tmp_path):
    write(tmp_path, World(gap=0.0), sizes=["s-2"], starts=[""], seeds=3, **LITTLE)
    assert "the score is not shown to change from val to shift" in said(tmp_path)
    write(tmp_path / "b", World(gap=0.2), sizes=["s-2"], starts=[""], seeds=3, **LITTLE)
    assert re.search(rf"the score falls by {NUMBER} from val to shift", said(tmp_path / "b"))


def test_findings_say_that_there_is_one_seed_and_who_was_stopped(tmp_path):
    write(tmp_path, sizes=["s-2", "s-1"], seeds=1, **LITTLE)
    assert "one seed of each. Intervals are over images alone" in said(tmp_path)
    rows = read_rows(tmp_path / "results.csv")
    rows[0]["diverged_at"] = rows[1]["diverged_at"] = "120"
    write_rows(tmp_path / "results.csv", rows, rows[0])
    assert "1 of 4 networks stopped early, at step 120" in said(tmp_path)


def test_findings_name_the_capacity_threshold_and_are_at_most_eight(tmp_path):
    world = World(gain=0.3, threshold=1e5, seeds=0.004)
    write(tmp_path, world, seeds=4, images=60, resamples=100, steps=())
    found = tables.read(tmp_path)
    sentences = findings.findings(found, whole := summary.summarize(found))
    (own,) = (gain for gain in whole.gains if gain.suite == "shift")
    assert own.threshold.found
    assert f"Capacity threshold of caltech101 on shift: {own.threshold.reason}." in sentences
    assert 3 <= len(sentences) <= findings.MOST


def test_gains_are_told_apart_by_settings_and_pooled_settings_are_no_seeds():
    base = tables.Member("", "", "", "val", "", "s-2", 10, 1, 0, "scratch", {}, {}, -1, np.nan)
    for settings, names in ((2, {"a (lr 0)", "a (lr 1)"}), (5, {"a"})):
        members = [
            base._replace(key=f"{s}{k}{p}{start}", seed=s, parameters=p, start=start,
                          varied={"lr": str(k)})
            for s in range(3) for k in range(settings) for p in (10, 20)
            for start in ("scratch", "a")
        ]  # fmt: skip
        both = summary.pairs(members)
        assert {*both} == names
        assert sum(map(len, both.values())) == 3 * settings * 2
        scores = {m.key: {tables.Part("val"): {"AP50": 0.1 * (m.start == "a")}} for m in members}
        found = tables.Tables(
            Path(), "detect", "AP50", "", {}, {}, tuple(members), ("val",), (), scores,
            {m.key: {"val": np.zeros(4)} for m in members}, {},
        )  # fmt: skip
        for gain in summary.summarize(found).gains:
            assert gain.parameters.tolist() == [10, 10, 10, 20, 20, 20]  # of three seeds each
            np.testing.assert_allclose(gain.gains, 0.1)
            assert gain.home == "val"


def test_over_seeds_averages_networks_first():
    base = tables.Member("", "", "", "val", "", "s-2", 10, 1, 0, "scratch", {}, {}, -1, np.nan)
    members = [base._replace(seed=s, parameters=p) for s in (0, 1) for p in (10, 20)]
    values = np.array([0.1, 0.5, 0.2, 0.6])  # 0.3 and 0.4 by seed
    found = summary.over_seeds(members, values, np.zeros((4, 5)))
    assert (found.value, found.seeds) == (pytest.approx(0.35), 2)
    # t(1, 0.975) = 12.706, s / sqrt(2) = 0.05
    assert found.high - found.value == pytest.approx(12.706 * 0.05, rel=1e-3)
    # a network that one seed lacks does not count, and networks are never seeds
    uneven = summary.over_seeds(members[:3], values[:3], np.zeros((3, 5)))
    assert (uneven.value, uneven.seeds) == (pytest.approx(0.15), 2)
    lost = summary.over_seeds(members, np.array([0.1, np.nan, 0.2, 0.6]), np.zeros((4, 5)))
    assert (lost.value, lost.seeds) == (pytest.approx(0.15), 2)
    rates = [base._replace(varied={"lr": str(k)}) for k in range(8)]
    assert summary.over_seeds(rates, np.linspace(0, 0.7, 8), np.zeros((8, 5))).seeds == 1


def test_what_a_field_says_is_escaped(tmp_path):
    bad = "<b onclick='x'>&\"$\\frac{a$"
    write(tmp_path, sizes=["s-2", "s-1"], seeds=2, varied={"freeze": bad}, **LITTLE)
    found = tables.read(tmp_path)
    whole = summary.summarize(found)
    html = page.html(found, whole, [bad], [], [bad])
    assert "<b onclick" not in html
    assert html.count("&lt;b onclick=&#x27;x&#x27;&gt;&amp;&quot;$\\frac{a$") >= 8 + 2
    named = whole._replace(kinds={key: f"{bad} {kind}" for key, kind in whole.kinds.items()})
    for figure in (curves.by_size, curves.shift, heatmaps.slices):
        figure(found, named).figure.savefig(io.BytesIO())  # "$" is no formula


def test_a_minus_before_zero_is_not_shown():
    assert [page._text(x, ".3f") for x in (-0.0004, -0.0006, 0.5)] == ["0.000", "-0.001", "0.500"]


def test_the_gallery_shows_where_the_small_one_alone_fails(tmp_path):
    write(tmp_path, sizes=["s-6", "s-3", "s-1"], seeds=2, **LITTLE)
    found = tables.read(tmp_path)
    small, large = galleries.compared(found)
    assert (small.backbone, large.backbone) == ("mobilenetv3/s-6", "mobilenetv3/s-1")
    assert (small.start, small.seed) == (large.start, large.seed)
    split = dataset.load(size=(96, 128), **IMAGES["val"])
    seen = [galleries.detections(found, member, "val") for member in (small, large)]
    (one,) = galleries.gallery("val", split, [small, large], seen)
    assert one.picture.width > 3 * 2 * 128  # three, enlarged
    assert galleries.gallery("val", split, [large, large], [seen[1], seen[1]]) == []
    short = [{**own, "wrong": own["wrong"][:3]} for own in seen]
    with pytest.raises(UserError, match="24 images now, 3 when it was evaluated"):
        galleries.gallery("val", split, [small, large], short)


def test_without_the_data_the_page_says_why_there_are_no_images(tmp_path):
    (id,) = write(tmp_path, sizes=["s-6"], starts=[""], seeds=1, **LITTLE)
    config = json.loads((tmp_path / "config.json").read_text())
    config["data"].update(format="coco", common={"source": str(tmp_path / "gone.zip")})
    config["data"]["suites"] = {name: {"split": name} for name in IMAGES}
    (tmp_path / "config.json").write_text(json.dumps(config))
    asked = {"command": "python -m tinyjax.evaluate", "config": config}
    (tmp_path / "evaluations" / "last.json").write_text(json.dumps(asked))
    assert json.loads((tmp_path / "weights" / f"{id}.json").read_text())["classes"] == [*CLASSES]
    report.main([str(tmp_path)])
    html = (tmp_path / "report.html").read_text()
    assert "No images are shown: " in html
    assert "gone.zip" in html
    assert "images0" not in figures_of(tmp_path)


def test_what_was_not_evaluated_is_evaluated_first(tmp_path, monkeypatch):
    study(tmp_path, sizes=["s-2"], starts=[""], seeds=1, **LITTLE)
    shutil.move(tmp_path / "a" / "evaluations", tmp_path / "kept")
    asked = []

    def evaluate(argv):
        asked.append(argv)
        shutil.move(tmp_path / "kept", tmp_path / "a" / "evaluations")
        return 0

    monkeypatch.setattr("tinyjax.evaluate.main", evaluate)
    assert report.main([str(tmp_path)]) == 0
    assert asked == [["--workdir", str(tmp_path / "a")]]


def test_mistakes_end_with_exit_code_2(tmp_path, capsys):
    def message(folder):
        assert exit_code(lambda: report.main([str(folder)])) == 2
        return capsys.readouterr().err

    assert "no such folder" in message(tmp_path / "absent")
    assert "no run, no sweep" in message(tmp_path)
    write(tmp_path / "a", sizes=["s-2"], starts=[""], seeds=1, **LITTLE)
    write(tmp_path / "b", World(), "classify", ["s-2"], [""], 1, **LITTLE)
    assert "runs of several tasks (classify, detect)" in message(tmp_path)
    (tmp_path / "a" / "results.csv").unlink()
    assert "not finished" in message(tmp_path / "a")
    with pytest.raises(SystemExit, match="2"):
        report.main([])


def test_an_evaluation_of_some_suites_is_none_and_a_broken_one_is_named(tmp_path):
    write(tmp_path, sizes=["s-2"], starts=[""], seeds=1, **LITTLE)
    assert run_folders.evaluated(tmp_path)
    file = tmp_path / "evaluations" / "last.csv"
    rows = read_rows(file)
    write_rows(file, [row for row in rows if row["suite"] != "shift"], rows[0])
    assert not run_folders.evaluated(tmp_path)
    write_rows(file, rows, rows[0])
    file.with_suffix(".npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"last\.npz: broken"):
        tables.read(tmp_path)


def test_a_study_leaves_out_what_it_starts_from_and_tells_starts_of_one_name_apart(tmp_path):
    starts = ("", f"{tmp_path}/imagenet", "/elsewhere/imagenet")
    write(tmp_path / "imagenet", sizes=["s-2"], starts=[""], seeds=2, **LITTLE)
    write(tmp_path / "tuned", sizes=["s-2"], starts=starts, seeds=2, **LITTLE)
    assert [*run_folders.runs_of(tmp_path)] == ["tuned"]
    names = {member.start for member in tables.read(tmp_path).members}
    assert names == {"scratch", f"{tmp_path.name}/imagenet", "elsewhere/imagenet"}
    shutil.rmtree(tmp_path / "tuned")
    write(tmp_path / "tuned", sizes=["s-2"], starts=("", starts[2]), seeds=2, **LITTLE)
    assert [*run_folders.runs_of(tmp_path)] == ["imagenet", "tuned"]  # another one of that name


def test_suites_of_one_name_must_be_one_set(tmp_path):
    study(tmp_path, sizes=["s-6"], seeds=2, sets=("a", "b"), **LITTLE)
    file = tmp_path / "b" / "evaluations" / "last.json"
    asked = json.loads(file.read_text())
    asked["config"]["data"]["suites"]["shift"]["seed"] = 7
    file.write_text(json.dumps(asked))
    with pytest.raises(UserError, match="suite 'shift' of a and of b are different sets"):
        tables.read(tmp_path)


def test_a_gain_that_is_not_known_leaves_the_others(tmp_path):
    write(tmp_path, World(gain=0.1), sizes=["s-6", "s-5", "s-3", "s-1"], seeds=3, **LITTLE)
    file = tmp_path / "evaluations" / "last.csv"
    rows = read_rows(file)
    (lost,) = [r for r in rows if r["suite"] == "shift" and not r["slice"]][:1]
    lost["AP50"] = "nan"
    write_rows(file, rows, rows[0])
    found = tables.read(tmp_path)
    whole = summary.summarize(found)
    (gain,) = (one for one in whole.gains if one.suite == "shift")
    assert len(gain.gains) == 11
    assert np.isfinite(gain.gains).all()
    said = " ".join(findings.findings(found, whole))
    assert "3 seeds" in said
    assert "11 seeds" not in said
