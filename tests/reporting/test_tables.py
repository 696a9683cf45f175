"""Members of a report: pairs, fields that depend on the start, gradient norms."""

import json

import numpy as np
import pytest

from tests.reporting.reports import SMALL, write
from tinyjax import report
from tinyjax.errors import UserError
from tinyjax.metrics.correlation import correlation
from tinyjax.reporting import estimates, findings, grouping, summary, tables
from tinyjax.run.csv_files import read_rows, write_rows
from tinyjax.tasks import get_task

LADDER = ("s-1", "s-2", "s-3", "s-4", "s-5", "s-6")


def test_fields_with_one_value_per_start_belong_to_the_start(tmp_path, without_figures):
    """Pairs may differ in the learning rate of their starts; other fields distinguish members."""
    write(tmp_path, sizes=["s-2", "s-1"], seeds=2, **SMALL)
    rows = read_rows(tmp_path / "members.csv")
    for row in rows:
        row["optimizer.lr"] = "0.008" if row["init"] else "0.016"
        row["ema"] = row["seed"]
    write_rows(tmp_path / "members.csv", rows, rows[0])
    contents = tables.read(tmp_path, get_task)
    assert all([*member.varied] == ["ema"] for member in contents.members)
    rates = {member.start: member.start_fields for member in contents.members}
    assert rates["caltech101"] == {"optimizer.lr": "0.008"}
    assert rates["scratch"] == {"optimizer.lr": "0.016"}
    by_start = grouping.pair_with_scratch(contents.members)
    pairs = [pair for group in by_start.values() for pair in group]
    assert len(pairs) == 4
    assert all(pair[0].varied == pair[1].varied for pair in pairs)
    assert report.main([str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "<dt>optimizer.lr</dt><dd>0.008, 0.016</dd>" in page


@pytest.mark.parametrize("field", ["data.train.split", "freeze", "augment.flip"])
def test_other_fields_distinguish_members(field, tmp_path):
    write(tmp_path, sizes=["s-2"], seeds=2, **SMALL)
    rows = read_rows(tmp_path / "members.csv")
    for row in rows:
        row[field] = "a" if row["init"] else "b"
    write_rows(tmp_path / "members.csv", rows, rows[0])
    members = tables.read(tmp_path, get_task).members
    assert all([*member.varied] == [field] and not member.start_fields for member in members)
    assert not grouping.pair_with_scratch(members)


def test_network_rows_match_their_members(sweep):
    """Means over seeds, and gains of pairs of equal seed, for all suites and slices."""
    contents = tables.read(sweep, get_task)
    rows = read_rows(sweep / "report.csv")
    conditions = {c for suite in contents.suites for c in contents.conditions(suite)}
    assert len(rows) == 4 * 2 * len(conditions)
    for row in rows:
        condition = tables.Condition(row["suite"], row["slice"])
        scores = {
            start: {
                member.seed: contents.score(member, condition)
                for member in contents.members
                if (member.backbone, member.start) == (row["backbone"], start)
            }
            for start in ("scratch", "caltech101")
        }
        values = scores[row["start"]]
        assert int(row["seeds"]) == len(values) == 3
        assert float(row["score"]) == pytest.approx(np.mean([*values.values()]))
        assert float(row["score_low"]) < float(row["score"]) < float(row["score_high"])
        if row["start"] == "scratch":
            assert row["gain"] == row["gain_low"] == row["gain_high"] == ""
        else:
            gains = [value - scores["scratch"][seed] for seed, value in values.items()]
            assert float(row["gain"]) == pytest.approx(np.mean(gains))
            assert float(row["gain_low"]) < float(row["gain"]) < float(row["gain_high"])


def write_probed(folder, rgn, split="train", start="runs/caltech101", sizes=("s-2", "s-1")):
    """Write a sweep with gradient norms: rgn for the first size, twice that for the next."""
    write(folder, sizes=sizes, starts=[start], seeds=2, rgn=False, **SMALL)
    config = json.loads((folder / "config.json").read_text())
    config["data"]["train"]["split"], config["init"] = split, start
    (folder / "config.json").write_text(json.dumps(config))
    evaluated = folder / "evaluations" / "last.json"
    evaluation = json.loads(evaluated.read_text())
    evaluated.write_text(json.dumps({**evaluation, "config": config}))
    if rgn:
        backbones = {r["member"]: r["backbone"] for r in read_rows(folder / "members.csv")}
        order = sorted({*backbones.values()}, reverse=True)
        rows = read_rows(folder / "results.csv")
        for row in rows:
            row["rgn"] = rgn * (1 + order.index(backbones[row["member"]]))
        write_rows(folder / "results.csv", rows, rows[0])


def norms(folder, run):
    members = [m for m in tables.read(folder, get_task).members if m.run == run]
    return {member.backbone: member.rgn for member in members}


def test_norms_apply_to_members_with_the_same_start_and_training_set(tmp_path):
    """Two different norms give none."""
    write_probed(tmp_path / "moves", None)
    write_probed(tmp_path / "here", 1.0)
    write_probed(tmp_path / "elsewhere", 9.0, split="other")
    expected = {"mobilenetv3/s-2": 1.0, "mobilenetv3/s-1": 2.0}
    assert norms(tmp_path, "moves") == expected
    write_probed(tmp_path / "from-scratch", 5.0, start="")
    assert norms(tmp_path, "moves") == expected
    write_probed(tmp_path / "again", 3.0)
    assert np.isnan([*norms(tmp_path, "moves").values()]).all()
    assert norms(tmp_path, "again") == {"mobilenetv3/s-2": 3.0, "mobilenetv3/s-1": 6.0}


def test_excluded_runs_still_provide_norms(tmp_path):
    write_probed(tmp_path / "moves", None)
    write_probed(tmp_path / "probe", 1.0)
    members = tables.read(tmp_path, get_task, exclude=("probe",)).members
    assert {(member.run, member.backbone, member.rgn) for member in members} == {
        ("moves", "mobilenetv3/s-2", 1.0), ("moves", "mobilenetv3/s-1", 2.0),
    }  # fmt: skip
    with pytest.raises(UserError, match="--exclude prob: did you mean 'probe'"):
        tables.read(tmp_path, get_task, exclude=("prob",))
    with pytest.raises(UserError, match="--exclude leaves no run to report"):
        tables.read(tmp_path, get_task, exclude=("probe", "moves"))


def test_norms_apply_to_members_that_start_from_the_measured_run(tmp_path):
    """The measured run is then no result itself."""
    study = tmp_path / "study"
    write_probed(study / "probe", 1.0)
    write_probed(study / "moves", None, start=str(study / "probe"))
    assert {member.run for member in tables.read(study, get_task).members} == {"moves"}
    assert norms(study, "moves") == {"mobilenetv3/s-2": 1.0, "mobilenetv3/s-1": 2.0}
    study.rename(tmp_path / "renamed")
    study.mkdir()
    (tmp_path / "renamed").rename(study / "study")  # moved
    assert norms(study / "study", "moves") == {"mobilenetv3/s-2": 1.0, "mobilenetv3/s-1": 2.0}


def correlation_with_order(gradient, ranks):
    """The correlation if the drops of the networks had this order."""
    rank = dict(zip(sorted({m.backbone for m in gradient.members}), ranks, strict=True))
    rgn, networks = ([getattr(m, f) for m in gradient.members] for f in ("rgn", "backbone"))
    return correlation(rgn, [rank[m.backbone] for m in gradient.members], networks)


def test_norms_are_correlated_with_drops_over_networks_of_one_start(tmp_path):
    write(tmp_path, sizes=LADDER, seeds=2, **SMALL)
    contents = tables.read(tmp_path, get_task)
    numbers = summary.summarize(contents)
    assert [(g.variant, g.suite) for g in numbers.gradients] == [
        ("scratch", "shift"), ("caltech101", "shift"),
    ]  # fmt: skip
    for gradient in numbers.gradients:
        assert gradient.correlation.networks == 6
        in_domain, shifted = (
            estimates.member_scores(contents, gradient.members, tables.Condition(suite))
            for suite in ("val", "shift")
        )
        np.testing.assert_allclose(gradient.drops, (in_domain - shifted) / in_domain)
    sentence = findings.describe_gradient_norms(contents, numbers)
    assert sentence.startswith("The relative gradient norm is correlated (0.")
    assert "with the relative drop under shift, by mean ranks over 2 comparisons. 2 of" in sentence
    assert "2 of the 2 correlations are significant; 0.1 are expected by chance." in sentence
    assert "On shift (caltech101), it is correlated (0." in sentence
    mixed = tuple(
        g._replace(correlation=correlation_with_order(g, [2, 5, 0, 3, 1, 4]))
        for g in numbers.gradients
    )
    single = findings.describe_gradient_norms(contents, numbers._replace(gradients=mixed[:1]))
    assert single.startswith("The relative gradient norm is not significantly correlated (")
    assert single.endswith(", 6 networks) with the relative drop on shift (scratch).")
    sentences = findings.describe_gradient_norms(contents, numbers._replace(gradients=mixed))
    assert "0 of the 2" in sentences
    assert "On shift" not in sentences
    few = tmp_path / "few"
    write(few, sizes=LADDER[:5], seeds=2, **SMALL)
    contents = tables.read(few, get_task)
    assert findings.describe_gradient_norms(contents, summary.summarize(contents)) is None
