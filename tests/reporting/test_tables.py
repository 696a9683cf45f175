"""Who is alike, what goes with a start, whose gradients were measured: members of a report."""

import json

import numpy as np
import pytest

from tests.reporting.reports import write
from tinyjax import report
from tinyjax.errors import UserError
from tinyjax.metrics.correlation import correlation
from tinyjax.reporting import findings, summary, tables
from tinyjax.run.csv_files import read_rows, write_rows

LITTLE = {"images": 60, "resamples": 100, "steps": (), "corrupt": False}
LADDER = ("s-1", "s-2", "s-3", "s-4", "s-5", "s-6")


def test_what_each_start_has_of_its_own_goes_with_it(tmp_path):
    """Pairs are of starts with their rates; a rate that both have sets members apart."""
    write(tmp_path, sizes=["s-2", "s-1"], seeds=2, **LITTLE)
    rows = read_rows(tmp_path / "members.csv")
    for row in rows:
        row["optimizer.lr"] = "0.008" if row["init"] else "0.016"
        row["ema"] = row["seed"]
    write_rows(tmp_path / "members.csv", rows, rows[0])
    found = tables.read(tmp_path)
    assert all([*member.varied] == ["ema"] for member in found.members)
    rates = {member.start: member.tied for member in found.members}
    assert rates["caltech101"] == {"optimizer.lr": "0.008"}
    assert rates["scratch"] == {"optimizer.lr": "0.016"}
    both = [pair for own in summary.pairs(found.members).values() for pair in own]
    assert len(both) == 4
    assert all(pair[0].varied == pair[1].varied for pair in both)
    assert report.main([str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "<dt>optimizer.lr</dt><dd>0.008, 0.016</dd>" in page


@pytest.mark.parametrize("field", ["data.train.split", "freeze", "augment.flip"])
def test_what_is_no_part_of_a_start_sets_members_apart(field, tmp_path):
    write(tmp_path, sizes=["s-2"], seeds=2, **LITTLE)
    rows = read_rows(tmp_path / "members.csv")
    for row in rows:
        row[field] = "a" if row["init"] else "b"
    write_rows(tmp_path / "members.csv", rows, rows[0])
    found = tables.read(tmp_path).members
    assert all([*member.varied] == [field] and not member.tied for member in found)
    assert not summary.pairs(found)


def test_the_table_of_networks_says_what_its_members_do(tmp_path):
    """Means over seeds, and gains of pairs of the same seed, of all suites and slices."""
    write(tmp_path, sizes=["s-2", "s-1"], seeds=3, **LITTLE)
    assert report.main([str(tmp_path)]) == 0
    found = tables.read(tmp_path)
    rows = read_rows(tmp_path / "report.csv")
    parts = {part for suite in found.suites for part in found.parts(suite)}
    assert len(rows) == 2 * 2 * len(parts)
    for row in rows:
        part = tables.Part(row["suite"], row["slice"])
        own = {
            start: {
                member.seed: found.of(member, part)
                for member in found.members
                if (member.backbone, member.start) == (row["backbone"], start)
            }
            for start in ("scratch", "caltech101")
        }
        values = own[row["start"]]
        assert int(row["seeds"]) == len(values) == 3
        assert float(row["score"]) == pytest.approx(np.mean([*values.values()]))
        assert float(row["score_low"]) < float(row["score"]) < float(row["score_high"])
        if row["start"] == "scratch":
            assert row["gain"] == row["gain_low"] == row["gain_high"] == ""
        else:
            gains = [value - own["scratch"][seed] for seed, value in values.items()]
            assert float(row["gain"]) == pytest.approx(np.mean(gains))
            assert float(row["gain_low"]) < float(row["gain"]) < float(row["gain_high"])


def probed(folder, rgn, split="train", start="runs/caltech101", sizes=("s-2", "s-1")):
    """A sweep with relative gradient norms of its own: rgn of the first size, twice of the next."""
    write(folder, sizes=sizes, starts=[start], seeds=2, rgn=False, **LITTLE)
    config = json.loads((folder / "config.json").read_text())
    config["data"]["train"]["split"], config["init"] = split, start
    (folder / "config.json").write_text(json.dumps(config))
    evaluated = folder / "evaluations" / "last.json"
    asked = json.loads(evaluated.read_text())
    evaluated.write_text(json.dumps({**asked, "config": config}))
    if rgn:
        size = {r["member"]: r["backbone"] for r in read_rows(folder / "members.csv")}
        order = sorted({*size.values()}, reverse=True)
        rows = read_rows(folder / "results.csv")
        for row in rows:
            row["rgn"] = rgn * (1 + order.index(size[row["member"]]))
        write_rows(folder / "results.csv", rows, rows[0])


def gradients(folder, run):
    found = [m for m in tables.read(folder).members if m.run == run]
    return {member.backbone: member.rgn for member in found}


def test_gradients_are_of_who_starts_where_the_probed_did(tmp_path):
    """And is trained on the same; of two that differ none."""
    probed(tmp_path / "moves", None)
    probed(tmp_path / "here", 1.0)
    probed(tmp_path / "elsewhere", 9.0, split="other")
    expected = {"mobilenetv3/s-2": 1.0, "mobilenetv3/s-1": 2.0}
    assert gradients(tmp_path, "moves") == expected
    probed(tmp_path / "from-scratch", 5.0, start="")
    assert gradients(tmp_path, "moves") == expected
    probed(tmp_path / "again", 3.0)
    assert np.isnan([*gradients(tmp_path, "moves").values()]).all()
    assert gradients(tmp_path, "again") == {"mobilenetv3/s-2": 3.0, "mobilenetv3/s-1": 6.0}


def test_who_is_only_measured_may_be_left_out(tmp_path):
    """What was measured is of the others all the same."""
    probed(tmp_path / "moves", None)
    probed(tmp_path / "probe", 1.0)
    found = tables.read(tmp_path, without=("probe",)).members
    assert {(member.run, member.backbone, member.rgn) for member in found} == {
        ("moves", "mobilenetv3/s-2", 1.0), ("moves", "mobilenetv3/s-1", 2.0),
    }  # fmt: skip
    with pytest.raises(UserError, match="--without prob: did you mean 'probe'"):
        tables.read(tmp_path, without=("prob",))
    with pytest.raises(UserError, match="--without leaves nothing to report"):
        tables.read(tmp_path, without=("probe", "moves"))


def test_gradients_are_of_who_starts_from_the_probed(tmp_path):
    """Which is no result itself, then."""
    study = tmp_path / "study"
    probed(study / "probe", 1.0)
    probed(study / "moves", None, start=str(study / "probe"))
    assert {member.run for member in tables.read(study).members} == {"moves"}
    assert gradients(study, "moves") == {"mobilenetv3/s-2": 1.0, "mobilenetv3/s-1": 2.0}
    study.rename(tmp_path / "renamed")
    study.mkdir()
    (tmp_path / "renamed").rename(study / "study")  # moved
    assert gradients(study / "study", "moves") == {"mobilenetv3/s-2": 1.0, "mobilenetv3/s-1": 2.0}


def order(one, ranks):
    """The correlation if the networks lost in this order."""
    place = dict(zip(sorted({m.backbone for m in one.members}), ranks, strict=True))
    rgn, networks = ([getattr(m, f) for m in one.members] for f in ("rgn", "backbone"))
    return correlation(rgn, [place[m.backbone] for m in one.members], networks)


def test_gradients_are_correlated_with_the_loss_over_networks_of_one_start(tmp_path):
    write(tmp_path, sizes=LADDER, seeds=2, **LITTLE)
    found = tables.read(tmp_path)
    told = summary.summarize(found)
    assert [(one.kind, one.suite) for one in told.gradients] == [
        ("scratch", "shift"), ("caltech101", "shift"),
    ]  # fmt: skip
    for one in told.gradients:
        assert one.correlation.networks == 6
        inside, shifted = (
            summary.points(found, one.members, tables.Part(suite)) for suite in ("val", "shift")
        )
        np.testing.assert_allclose(one.lost, (inside - shifted) / inside)
    sentence = findings.gradients(found, told)
    assert sentence.startswith("The relative gradient norm is correlated (0.")
    assert "with the loss under shift, by mean ranks in 2 comparisons. One by one, 2" in sentence
    assert "2 of 2 correlations of the relative gradient norm leave zero out; 0.1 would" in sentence
    assert "On shift (caltech101) it is correlated (0." in sentence
    mixed = tuple(
        one._replace(correlation=order(one, [2, 5, 0, 3, 1, 4])) for one in told.gradients
    )
    one = findings.gradients(found, told._replace(gradients=mixed[:1]))
    assert one.startswith("The relative gradient norm is not shown to be correlated (")
    assert one.endswith(", 6 networks) with the loss on shift (scratch).")
    one_by_one = findings.gradients(found, told._replace(gradients=mixed)).partition("One by")[2]
    assert "0 of 2" in one_by_one
    assert "On shift" not in one_by_one
    few = tmp_path / "few"
    write(few, sizes=LADDER[:5], seeds=2, **LITTLE)
    found = tables.read(few)
    assert findings.gradients(found, summary.summarize(found)) is None
