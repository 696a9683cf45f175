"""tinyjax.rgn and tinyjax.average, on tiny runs: in phases, and sweeps."""

import csv
import json

import numpy as np
import pytest

from tests.configs import detector, sweep_starting_weights
from tests.configs import sweep as tiny_sweep
from tinyjax import average, config, rgn, train
from tinyjax.errors import UserError
from tinyjax.population.options import select_members
from tinyjax.run import run_folder
from tinyjax.run.csv_files import write_rows
from tinyjax.run.weights import read_weights, write_weights
from tinyjax.step import Variables
from tinyjax.transfer import regularizers, starting_weights
from tinyjax.transfer.weight_averaging import greedy, mixed

SWEEP = tiny_sweep.__file__


def rows(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def phased(tmp_path_factory):
    """Decoder probing, then fine-tuning."""
    folder = tmp_path_factory.mktemp("phased") / "run"
    own = detector.get_config()
    own.phases = ({"freeze": ("backbone",)}, {"optimizer.lr": 3e-3})
    assert train.train(own, folder) == 0
    return folder


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two sizes, two seeds; the narrow ones padded."""
    folder = tmp_path_factory.mktemp("sweep") / "run"
    argv = ["--config", SWEEP, "--workdir", str(folder), "--sweep.only", "optimizer.lr=0.001"]
    assert train.main(argv) == 0
    return folder


def test_rgn_of_a_run(phased, capsys):
    probed = phased / "phase1"
    assert rgn.main(["--workdir", str(probed), "--batches", "2"]) == 0
    layers = rows(probed / "rgn.csv")
    assert layers[0]["path"] == "backbone/stem/kernel"
    assert all(float(row["p5"]) <= float(row["median"]) <= float(row["p95"]) for row in layers)
    assert all(float(row["l2_ratio"]) > 0 for row in layers)
    number = np.mean([float(row["mean"]) for row in layers])
    assert [float(row["rgn"]) for row in rows(probed / "results.csv")] == pytest.approx(
        [number] * 2
    )
    assert (probed / "figures" / "rgn.png").stat().st_size > 5000
    assert f"relative gradient norm {number:.4g}" in capsys.readouterr().out
    # what is frozen drops out, and what is left is what it was
    frozen = ["--freeze", "stage<=2", "--freeze", "batchnorm"]
    assert rgn.main(["--workdir", str(probed), "--batches", "2", *frozen]) == 0
    left = rows(probed / "rgn.csv")
    assert 0 < len(left) < len(layers)
    assert not any("/stem/" in row["path"] or "/stage2/" in row["path"] for row in left)
    with pytest.raises(UserError, match="--freeze backbone: no layer of the backbone is left"):
        rgn.main(["--workdir", str(probed), "--freeze", "backbone"])
    # in the whole run's table its own weights are the last phase's
    assert rgn.main(["--workdir", str(phased), "--batches", "1"]) == 0
    told = {(row["phase"], bool(row["rgn"])) for row in rows(phased / "results.csv")}
    assert told == {("1", False), ("2", True)}


def test_rgn_of_a_population_is_each_ones_own(sweep, tmp_path):
    assert rgn.main(["--workdir", str(sweep), "--batches", "2"]) == 0
    found = rows(sweep / "rgn.csv")
    members = [row["member"] for row in rows(sweep / "members.csv")]
    assert {row["member"] for row in found} == {*members}
    assert len({row["rgn"] for row in rows(sweep / "results.csv")}) == len(members) == 4
    # the narrow one by itself: the same weights in a run folder of its own
    narrow = min(rows(sweep / "members.csv"), key=lambda row: int(row["parameters"]))
    alone = tmp_path / "alone"
    base = tiny_sweep.get_config()
    (member,) = (m for m in select_members(SWEEP, base) if m.id == narrow["member"])
    run_folder.create(alone, config.to_json(config.with_fields(base, member.point)))
    trees, about = read_weights(sweep / "weights" / member.id)
    weights = alone / "weights" / run_folder.member_id({})
    write_weights(weights, Variables(**trees), about)
    write_rows(
        alone / "results.csv",
        [{"member": run_folder.member_id({}), "suite": "val"}],
        ["member", "suite"],
    )
    assert rgn.main(["--workdir", str(alone), "--batches", "2"]) == 0
    mine = [row for row in found if row["member"] == member.id]
    for one, other in zip(mine, rows(alone / "rgn.csv"), strict=True):
        assert (one["path"], one["kernels"]) == (other["path"], other["kernels"])
        for name in ("median", "l2_ratio"):
            assert float(one[name]) == pytest.approx(float(other[name]), rel=0.02)


def test_between_start_and_end(phased, capsys):
    assert average.main(["--workdir", str(phased), "--parts", "0,0.5,1", "--batches", "2"]) == 0
    table = rows(phased / "averages" / "results.csv")
    assert [(row["average"], row["suite"]) for row in table] == [
        (f"part-{part}", suite) for part in ("0", "0.5", "1") for suite in ("day", "val")
    ]
    ends = [
        read_weights(place / "weights" / run_folder.member_id({}))[0]["params"]
        for place in (phased / "phase1", phased)
    ]
    for part in (0, 0.5, 1):
        trees, about = read_weights(phased / "averages" / f"part-{part:g}")
        assert about["average"] == {"part": part}
        for path, leaf in trees["params"].items():
            between = np.float32(1 - part) * ends[0][path] + np.float32(part) * ends[1][path]
            np.testing.assert_array_equal(leaf, between)
    assert (phased / "figures" / "averages.png").stat().st_size > 5000
    assert "part-0.5" in capsys.readouterr().out
    with pytest.raises(UserError, match="--parts 0,2: give numbers from 0 to 1"):
        average.main(["--workdir", str(phased), "--parts", "0,2"])
    with pytest.raises(UserError, match="is no run in phases; give the run that it started from"):
        average.main(["--workdir", str(phased / "phase1")])


def test_soups_of_a_sweep(sweep):
    assert average.main(["--workdir", str(sweep), "--batches", "2"]) == 0
    table = rows(sweep / "averages" / "results.csv")
    assert len({row["average"] for row in table}) == 4  # two sizes, uniform and greedy
    for row in table:
        members = row["members"].split()
        assert len(members) == 2 or row["average"].startswith("greedy")
        trees, _ = read_weights(sweep / "averages" / row["average"])
        own = [read_weights(sweep / "weights" / m)[0]["params"] for m in members]
        for path, leaf in trees["params"].items():
            np.testing.assert_allclose(leaf, np.mean([o[path] for o in own], 0), atol=1e-6)
    with pytest.raises(UserError, match="is a sweep, whose members are averaged"):
        average.main(["--workdir", str(sweep), "--start", str(sweep)])


def test_the_greedy_soup_by_hand():
    """Values in the place of networks: the best is 5, the aim 4."""
    values, asked = [1.0, 5.0, 3.0, 4.5], []

    def score(kept):
        asked.append([*kept])
        return -abs(np.mean([values[i] for i in kept]) - 4)

    alone = [-abs(value - 4) for value in values]
    assert greedy(alone, score) == [3, 2]  # 4.5 first; 5 with it is no better, 3 is
    assert asked == [[3, 1], [3, 2], [3, 2, 0]]


def test_networks_that_differ_have_no_average(phased, sweep):
    one, other = (
        Variables(**read_weights(file.with_suffix(""))[0])
        for file in sorted(
            (sweep / "weights").glob("*.safetensors"), key=lambda file: file.stat().st_size
        )[:: len(list((sweep / "weights").glob("*.safetensors"))) - 1]
    )
    with pytest.raises(UserError, match="differ in their arrays have no average"):
        mixed([one, other], [0.5, 0.5])


PULLS = """
from tests import tiny_config

def get_config(arg=None):
    config = tiny_config.get_config()
    config.init, config.regularizer.batches, config.eval_every = arg, 2, 6
    config.data.suites = {"val": {"n": 1}}
    return config

def get_hyper(hyper):
    kinds = lambda kind, *strengths: hyper.product(
        [hyper.fixed("regularizer.name", kind), hyper.sweep("regularizer.strength", strengths)]
    )
    others = [kinds("ewc", 1e6), kinds("fisher", 1e15), hyper.fixed("optimizer.auto_rgn", 1.0)]
    return hyper.chainit([kinds("rgn", 0.0, 1.0, 1e9), *others])
"""


def pulled(start, folder, *only):
    """A sweep of pulls: of each member its point, how far its backbone went, and its metric."""
    file = folder.parent / "pulls.py"
    file.write_text(PULLS)
    argv = ["--config", f"{file}:{start}", "--workdir", str(folder), *only]
    assert train.main(argv) == 0
    plan = json.loads((folder / "plan.json").read_text())
    points = {id: tuple(point.values()) for id, point in plan["members"].items()}
    first, _ = read_weights(start / "weights" / run_folder.member_id({}))
    far, pulls = {}, {}
    for id, point in points.items():
        trees, _ = read_weights(folder / "weights" / id)
        far[point] = sum(
            float(((leaf - first["params"][path]) ** 2).sum())
            for path, leaf in trees["params"].items()
            if regularizers.is_regularized(path)
        )
        pulls[point] = [
            float(row["value"])
            for row in rows(folder / "metrics.csv")
            if (row["member"], row["metric"]) == (id, "regularizer")
        ]
    return points, far, pulls


def test_pulls_of_a_population(phased, tmp_path):
    folder = tmp_path / "run"
    only = ["--sweep.only", "regularizer.name=rgn"]
    points, far, pulls = pulled(phased / "phase1", folder, *only)
    assert 0 < far["rgn", 1e9] < far["rgn", 1.0] < far["rgn", 0.0]
    assert pulls["rgn", 0.0] == [0.0] * 6
    assert pulls["rgn", 1.0][0] == 0 < pulls["rgn", 1.0][-1]
    # the one that is not pulled is what it is without all that
    alone = tmp_path / "alone"
    own = detector.get_config()
    own.init = str(phased / "phase1")
    assert train.train(own, alone) == 0
    (free,) = (id for id, point in points.items() if point == ("rgn", 0.0))
    trees, _ = read_weights(folder / "weights" / free)
    plain, _ = read_weights(alone / "weights" / run_folder.member_id({}))
    for path, leaf in plain["params"].items():
        np.testing.assert_allclose(trees["params"][path], leaf, atol=0.01, err_msg=path)


@pytest.mark.slow
def test_other_pulls(phased, tmp_path):
    _, far, pulls = pulled(phased / "phase1", tmp_path / "run")
    for point in (("ewc", 1e6), ("fisher", 1e15)):
        assert 0 < far[point] < 0.9 * far["rgn", 0.0], point
        assert pulls[point][0] == 0 < pulls[point][-1]
    assert 0 < far[(1.0,)] < far["rgn", 0.0]  # automatic rates are parts of the rate
    assert pulls[(1.0,)] == []  # nobody there is pulled: it is not in the program


def test_a_pull_needs_something_to_pull_to(tmp_path):
    own = detector.get_config()
    own.regularizer.strength = 0.1
    with pytest.raises(
        UserError, match=r"regularizer\.strength = 0\.1: there are no starting weights"
    ):
        train.train(own, tmp_path / "run")
    own.regularizer.name = "ewcc"
    with pytest.raises(UserError, match=r"regularizer\.name = 'ewcc': did you mean 'ewc'"):
        train.train(own, tmp_path / "run")


def test_members_start_from_those_of_a_sweep_with_their_backbone_and_seed(
    sweep, tmp_path, monkeypatch
):
    """Seed k from seed k, the pairs that a gain of pretraining is judged by."""
    monkeypatch.setenv("TINY_STARTS", str(sweep))
    argv = ["--config", sweep_starting_weights.__file__, "--workdir", str(tmp_path / "run")]
    assert train.main([*argv, "--config.optimizer.lr=0.0"]) == 0
    starts = {(row["backbone"], row["seed"]): row["member"] for row in rows(sweep / "members.csv")}
    there = rows(tmp_path / "run" / "members.csv")
    assert sorted({row["init"] for row in there}) == ["", str(sweep)]
    weights = {
        row["member"]: read_weights(tmp_path / "run" / "weights" / row["member"])[0]
        for row in there
    }
    for row in there:
        before, _ = read_weights(sweep / "weights" / starts[row["backbone"], row["seed"]])
        own = weights[row["member"]]["params"]
        same = all(np.array_equal(leaf, own[path]) for path, leaf in before["params"].items())
        assert same == bool(row["init"])


def test_a_sweep_that_has_no_such_member_to_start_from(sweep, tmp_path):
    for seed, backbone, message in (
        (2, "mobilenetv3/s-6", "0 members of this sweep are mobilenetv3/s-6 of seed 2"),
        (0, "mobilenetv3/s-4", "0 members of this sweep are mobilenetv3/s-4 of seed 0"),
    ):
        with pytest.raises(UserError, match=message):
            starting_weights.read(str(sweep), backbone, seed)
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(UserError, match="this sweep has not finished"):
        starting_weights.read(str(tmp_path), "mobilenetv3/s-6", 0)
