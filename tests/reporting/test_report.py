"""Reports of runs, sweeps and studies: files, numbers, findings, errors."""

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit

from tests.reporting.reports import SMALL, World, study, write
from tinyjax import report
from tinyjax.errors import UserError, exit_code
from tinyjax.reporting import (
    curves,
    estimates,
    findings,
    grouping,
    heatmaps,
    html_table,
    page,
    run_folders,
    summary,
    tables,
)
from tinyjax.run.csv_files import read_rows, write_rows
from tinyjax.tasks import get_task

NUMBER = r"(-?\d\.\d{3}) \[(-?\d\.\d{3}), (-?\d\.\d{3})\]"


def sentences(folder):
    contents = tables.read(folder, get_task)
    return " ".join(findings.make_findings(contents, summary.summarize(contents)))


def figures_of(folder):
    return {path.stem for path in (folder / "figures" / "report").iterdir()}


def test_report_of_a_single_run(tmp_path):
    write(tmp_path, sizes=["s-6"], starts=[""], seeds=1)
    assert report.main([str(tmp_path)]) == 0
    assert figures_of(tmp_path) == {
        "scores", "corruptions", "classes", "calibration", "learning", "images0", "images1",
    }  # fmt: skip
    html = (tmp_path / "report.html").read_text()
    assert "python -m tinyjax.train --config configs/x.py --workdir runs/x" in html
    assert "trained with one seed" in html
    assert html.count("data:image/png;base64,") == 7


def test_report_of_a_sweep(sweep):
    """Figures of an older report were removed, see the fixture."""
    assert figures_of(sweep) == {
        "size", "shift", "gain", "rgn", "slices", "classes", "calibration", "learning", "images0",
        "images1",
    }  # fmt: skip


def test_study_has_the_members_of_all_runs(tmp_path):
    study(tmp_path, sizes=["s-6", "s-1"], seeds=2, sets=("a", "b"), **SMALL)
    contents = tables.read(tmp_path, get_task)
    assert len({member.id for member in contents.members}) == 8
    assert len({member.key for member in contents.members}) == 16
    assert [member.run for member in contents.members] == ["a"] * 8 + ["b"] * 8
    assert {member.trained_on for member in contents.members} == {"a: synthetic", "b: synthetic"}
    assert heatmaps.draw_training_set_matrix(contents, summary.summarize(contents)) is not None
    alone = tables.read(tmp_path / "a", get_task)
    assert heatmaps.draw_training_set_matrix(alone, summary.summarize(alone)) is None


def test_a_run_of_a_study_may_lack_a_suite(tmp_path):
    study(tmp_path, sizes=["s-6", "s-3", "s-1"], seeds=2, sets=("a", "b"), **SMALL)
    file = tmp_path / "b" / "evaluations" / "last.csv"
    rows = [row for row in read_rows(file) if row["suite"] != "shift"]
    write_rows(file, rows, rows[0])
    with np.load(file.with_suffix(".npz")) as arrays:
        evaluated = dict(arrays)
    of_val = np.char.startswith(evaluated["parts"], "val")
    evaluated["parts"] = evaluated["parts"][of_val]
    evaluated["replicates"] = evaluated["replicates"][:, of_val]
    np.savez(file.with_suffix(".npz"), **evaluated)
    contents = tables.read(tmp_path, get_task)
    numbers = summary.summarize(contents)
    assert all(np.isnan(numbers.members[m.key].gap) == (m.run == "b") for m in contents.members)
    pattern = rf"the score falls by {NUMBER}"
    matches = [re.search(pattern, sentences(path)) for path in (tmp_path, tmp_path / "a")]
    assert matches[0][0] == matches[1][0]


def test_numbers_of_a_member_match_the_files(tmp_path):
    ids = write(tmp_path, sizes=["s-4", "s-2", "s-1"], starts=[""], seeds=2)
    id = ids[0]
    rows = [row for row in read_rows(tmp_path / "evaluations" / "last.csv") if row["member"] == id]
    score = {
        (r["suite"], r["slice"], r["corruption"], r["severity"]): float(r["AP50"]) for r in rows
    }
    contents = tables.read(tmp_path, get_task)
    numbers = summary.summarize(contents).members[id]
    in_domain, shifted = score["val", "", "", ""], score["shift", "", "", ""]
    assert (numbers.in_domain, numbers.shifted) == (in_domain, shifted)
    assert numbers.gap == pytest.approx(in_domain - shifted)
    assert numbers.relative_drop == pytest.approx(1 - shifted / in_domain)
    slices = {f"{a}/{b}": v for (a, b, _, _), v in score.items() if b}
    assert numbers.worst_slice == min(slices.items(), key=lambda item: item[1])
    corrupted = [v for (_, _, c, _), v in score.items() if c]
    assert numbers.mpc == pytest.approx(np.mean(corrupted))
    assert numbers.rpc == pytest.approx(np.mean(corrupted) / score["val-c", "", "", ""])
    # The line is fitted to the four members of the other two sizes.
    others = contents.members[2:]
    x, y = (
        logit([contents.score(m, tables.Condition(suite)) for m in others])
        for suite in ("val", "shift")
    )
    line = np.polyfit(x, y, 1)
    expected = expit(np.polyval(line, logit(in_domain)))
    assert numbers.effective_robustness == pytest.approx(shifted - expected)


def test_a_suite_with_fewer_classes_is_compared_over_these(tmp_path):
    (id,) = write(tmp_path, sizes=["s-2"], starts=[""], seeds=1, **SMALL)
    file = tmp_path / "evaluations" / "last.csv"
    rows = read_rows(file)
    (in_domain,) = (row for row in rows if row["suite"] == "val" and not row["slice"])
    (shifted,) = (row for row in rows if row["suite"] == "shift" and not row["slice"])
    shifted["AP50/animal"] = "nan"
    rows.append({**in_domain, "slice": "classes=person+vehicle", "AP50": "0.9"})
    rows.append({**in_domain, "slice": "classes=person", "AP50": "0.1"})
    write_rows(file, rows, rows[0])
    numbers = summary.summarize(tables.read(tmp_path, get_task)).members[id]
    assert numbers.in_domain == float(in_domain["AP50"])
    assert numbers.gap == pytest.approx(0.9 - float(shifted["AP50"]))
    assert not numbers.worst_slice[0].startswith("val/classes")


def test_members_are_those_of_the_last_phase(tmp_path):
    (id,) = write(tmp_path, sizes=["s-2"], starts=[""], seeds=1, **SMALL)
    for name in ("members", "results"):
        rows = read_rows(tmp_path / f"{name}.csv")
        both = [{"phase": 1, **row, "seed": 7, "diverged_at": 5} for row in rows]
        both += [{"phase": 2, **row, "seed": 8, "diverged_at": -1} for row in rows]
        write_rows(tmp_path / f"{name}.csv", both, both[0])
    (member,) = tables.read(tmp_path, get_task).members
    assert (member.id, member.seed, member.diverged_at) == (id, 8, -1)


def test_starts_have_short_names_and_pairs_are_equal_in_all_else(tmp_path):
    write(tmp_path, sizes=["s-2", "s-1"], seeds=2, varied={"freeze": "backbone"}, **SMALL)
    members = tables.read(tmp_path, get_task).members
    assert {member.start for member in members} == {"scratch", "caltech101"}
    pairs = grouping.pair_with_scratch(members)["caltech101"]
    assert len(pairs) == 4
    for member, other in pairs:
        assert member._replace(key="", id="", start="", rgn=0) == other._replace(
            key="", id="", start="", rgn=0
        )
    unpaired = [m._replace(varied={"freeze": m.start}) for m in members]
    assert grouping.pair_with_scratch(unpaired) == {}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"format": "coco", "common": {"source": "a/b.zip"}, "train": {"split": "s"}}, "b s"),
        ({"format": "synthetic", "train": {"n": 3}}, "synthetic"),
    ],
)
def test_describe_training_set(config, words):
    assert run_folders.describe_training_set({"data": config}) == words


def test_findings_state_an_effect_with_its_interval(tmp_path):
    write(tmp_path, World(gain=0.1), sizes=["s-2", "s-1"], seeds=4, **SMALL)
    sentence = re.search(r"caltech101 gains (.*?) on val", sentences(tmp_path))
    value, low, high = map(float, re.fullmatch(NUMBER, sentence[1]).groups())
    assert low < 0.1 < high
    assert low < value < high
    assert high - low < 0.1


def test_findings_call_no_effect_not_significant(tmp_path):
    not_significant = []
    for draw in range(20):
        folder = tmp_path / str(draw)
        write(folder, World(), "classify", ["s-2", "s-1"], seeds=4, draw=draw, **SMALL)
        text = sentences(folder)
        not_significant.append("has no significant gain or loss on val" in text)
        significant = re.search(r"caltech101 (gains|loses) \S+ \[.*?\] on val", text)
        assert not_significant[-1] != bool(significant)
    assert sum(not_significant) >= 17  # of 20; 19 are expected


def test_findings_on_shift(tmp_path):
    write(tmp_path, World(gap=0.0), sizes=["s-2"], starts=[""], seeds=3, **SMALL)
    assert "the score does not change significantly from val to shift" in sentences(tmp_path)
    write(tmp_path / "b", World(gap=0.2), sizes=["s-2"], starts=[""], seeds=3, **SMALL)
    assert re.search(rf"the score falls by {NUMBER} from val to shift", sentences(tmp_path / "b"))


def test_findings_mention_a_single_seed_and_diverged_members(tmp_path):
    write(tmp_path, sizes=["s-2", "s-1"], seeds=1, **SMALL)
    assert "one seed each. Intervals cover other images, not other seeds" in sentences(tmp_path)
    rows = read_rows(tmp_path / "results.csv")
    rows[0]["diverged_at"] = rows[1]["diverged_at"] = "120"
    write_rows(tmp_path / "results.csv", rows, rows[0])
    assert "1 of 4 members diverged, at step 120" in sentences(tmp_path)


def test_findings_name_the_capacity_threshold(tmp_path):
    world = World(gain=0.3, threshold=1e5, seeds=0.004)
    write(tmp_path, world, seeds=4, images=60, resamples=100, steps=())
    contents = tables.read(tmp_path, get_task)
    numbers = summary.summarize(contents)
    result = findings.make_findings(contents, numbers)
    (gain,) = (gain for gain in numbers.gains if gain.suite == "shift")
    assert gain.threshold.found
    assert f"Capacity threshold for caltech101 on shift: {gain.threshold.reason}." in result
    assert 3 <= len(result) <= findings.MAX_FINDINGS


def test_gains_are_separated_by_settings_and_pooled_settings_are_no_seeds():
    base = tables.Member("", "", "", "val", "", "s-2", 10, 10, 1, 0, "scratch", {}, {}, -1, np.nan)
    for settings, names in ((2, {"a (lr 0)", "a (lr 1)"}), (5, {"a"})):
        members = [
            base._replace(key=f"{s}{k}{p}{start}", seed=s, parameters=p, start=start,
                          varied={"lr": str(k)})
            for s in range(3) for k in range(settings) for p in (10, 20)
            for start in ("scratch", "a")
        ]  # fmt: skip
        pairs = grouping.pair_with_scratch(members)
        assert {*pairs} == names
        assert sum(map(len, pairs.values())) == 3 * settings * 2
        val = tables.Condition("val")
        scores = {m.key: {val: {"AP50": 0.1 * (m.start == "a")}} for m in members}
        contents = tables.Tables(
            Path(), get_task("detect"), {}, {}, tuple(members), ("val",), (), scores,
            {m.key: {"val": np.zeros(4)} for m in members}, {},
        )  # fmt: skip
        for gain in summary.summarize(contents).gains:
            assert gain.parameters.tolist() == [10, 10, 10, 20, 20, 20]  # three seeds each
            np.testing.assert_allclose(gain.gains, 0.1)
            assert gain.in_domain == "val"


def test_estimate_over_seeds_averages_networks_first():
    base = tables.Member("", "", "", "val", "", "s-2", 10, 10, 1, 0, "scratch", {}, {}, -1, np.nan)
    members = [base._replace(seed=s, parameters=p) for s in (0, 1) for p in (10, 20)]
    values = np.array([0.1, 0.5, 0.2, 0.6])  # 0.3 and 0.4 by seed
    estimate = estimates.estimate_over_seeds(members, values, np.zeros((4, 5)))
    assert (estimate.value, estimate.seeds) == (pytest.approx(0.35), 2)
    # t(1, 0.975) = 12.706, s / sqrt(2) = 0.05
    assert estimate.high - estimate.value == pytest.approx(12.706 * 0.05, rel=1e-3)
    # a network that one seed lacks does not count, and networks do not count as seeds
    uneven = estimates.estimate_over_seeds(members[:3], values[:3], np.zeros((3, 5)))
    assert (uneven.value, uneven.seeds) == (pytest.approx(0.15), 2)
    values[1] = np.nan
    with_nan = estimates.estimate_over_seeds(members, values, np.zeros((4, 5)))
    assert (with_nan.value, with_nan.seeds) == (pytest.approx(0.15), 2)
    rates = [base._replace(varied={"lr": str(k)}) for k in range(8)]
    assert estimates.estimate_over_seeds(rates, np.linspace(0, 0.7, 8), np.zeros((8, 5))).seeds == 1


def test_text_of_fields_is_escaped(tmp_path):
    markup = "<b onclick='x'>&\"$\\frac{a$"
    write(tmp_path, sizes=["s-2", "s-1"], seeds=2, varied={"freeze": markup}, **SMALL)
    contents = tables.read(tmp_path, get_task)
    numbers = summary.summarize(contents)
    html = page.render(contents, numbers, [markup], [], [markup])
    assert "<b onclick" not in html
    assert html.count("&lt;b onclick=&#x27;x&#x27;&gt;&amp;&quot;$\\frac{a$") >= 8 + 2
    variants = {key: f"{markup} {variant}" for key, variant in numbers.variants.items()}
    numbers = numbers._replace(variants=variants)
    for figure in (curves.draw_score_by_size, curves.draw_shift, heatmaps.draw_slices):
        figure(contents, numbers).figure.savefig(io.BytesIO())  # "$" starts no formula


def test_zero_has_no_minus_sign():
    texts = [html_table.number_text(number, ".3f") for number in (-0.0004, -0.0006, 0.5)]
    assert texts == ["0.000", "-0.001", "0.500"]


def test_runs_are_evaluated_first(tmp_path, monkeypatch, without_figures):
    study(tmp_path, sizes=["s-2"], starts=[""], seeds=1, **SMALL)
    shutil.move(tmp_path / "a" / "evaluations", tmp_path / "moved")
    calls = []

    def evaluate(argv):
        calls.append(argv)
        shutil.move(tmp_path / "moved", tmp_path / "a" / "evaluations")
        return 0

    monkeypatch.setattr("tinyjax.evaluate.main", evaluate)
    assert report.main([str(tmp_path)]) == 0
    assert calls == [["--workdir", str(tmp_path / "a")]]


def test_invalid_input_exits_with_code_2(tmp_path, capsys):
    def message(folder):
        assert exit_code(lambda: report.main([str(folder)])) == 2
        return capsys.readouterr().err

    assert "no such folder" in message(tmp_path / "absent")
    assert "contains no run, sweep" in message(tmp_path)
    write(tmp_path / "a", sizes=["s-2"], starts=[""], seeds=1, **SMALL)
    write(tmp_path / "b", World(), "classify", ["s-2"], [""], 1, **SMALL)
    assert "runs of several tasks (classify, detect)" in message(tmp_path)
    (tmp_path / "a" / "results.csv").unlink()
    assert "not finished" in message(tmp_path / "a")
    with pytest.raises(SystemExit, match="2"):
        report.main([])


def test_incomplete_and_broken_evaluations(tmp_path):
    write(tmp_path, sizes=["s-2"], starts=[""], seeds=1, **SMALL)
    assert run_folders.is_evaluated(tmp_path)
    file = tmp_path / "evaluations" / "last.csv"
    rows = read_rows(file)
    write_rows(file, [row for row in rows if row["suite"] != "shift"], rows[0])
    assert not run_folders.is_evaluated(tmp_path)
    write_rows(file, rows, rows[0])
    file.with_suffix(".npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"last\.npz: cannot be read"):
        tables.read(tmp_path, get_task)


def test_study_leaves_out_runs_that_others_start_from(tmp_path):
    starts = ("", f"{tmp_path}/imagenet", "/elsewhere/imagenet")
    write(tmp_path / "imagenet", sizes=["s-2"], starts=[""], seeds=2, **SMALL)
    write(tmp_path / "tuned", sizes=["s-2"], starts=starts, seeds=2, **SMALL)
    assert [*run_folders.list_runs(tmp_path)] == ["tuned"]
    names = {member.start for member in tables.read(tmp_path, get_task).members}
    assert names == {"scratch", f"{tmp_path.name}/imagenet", "elsewhere/imagenet"}
    shutil.rmtree(tmp_path / "tuned")
    write(tmp_path / "tuned", sizes=["s-2"], starts=("", starts[2]), seeds=2, **SMALL)
    assert [*run_folders.list_runs(tmp_path)] == ["imagenet", "tuned"]  # another folder
    (tmp_path / "tuned" / "results.csv").unlink()
    with pytest.raises(UserError, match="tuned: this run is not finished"):
        run_folders.list_runs(tmp_path)
    assert [*run_folders.list_runs(tmp_path, ["tuned"])] == ["imagenet"]


def test_suites_with_one_name_must_be_one_set(tmp_path):
    study(tmp_path, sizes=["s-6"], seeds=2, sets=("a", "b"), **SMALL)
    file = tmp_path / "b" / "evaluations" / "last.json"
    evaluation = json.loads(file.read_text())
    evaluation["config"]["data"]["suites"]["shift"]["seed"] = 7
    file.write_text(json.dumps(evaluation))
    with pytest.raises(UserError, match="suite 'shift' is a different set in a and b"):
        tables.read(tmp_path, get_task)


def test_an_unknown_gain_is_left_out(tmp_path):
    write(tmp_path, World(gain=0.1), sizes=["s-6", "s-5", "s-3", "s-1"], seeds=3, **SMALL)
    file = tmp_path / "evaluations" / "last.csv"
    rows = read_rows(file)
    row = next(r for r in rows if r["suite"] == "shift" and not r["slice"])
    row["AP50"] = "nan"
    write_rows(file, rows, rows[0])
    contents = tables.read(tmp_path, get_task)
    numbers = summary.summarize(contents)
    (gain,) = (gain for gain in numbers.gains if gain.suite == "shift")
    assert len(gain.gains) == 11
    assert np.isfinite(gain.gains).all()
    text = " ".join(findings.make_findings(contents, numbers))
    assert "3 seeds" in text
    assert "11 seeds" not in text
