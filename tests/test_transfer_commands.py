"""Phases, tinyjax.rgn, tinyjax.average, regularizers and starting weights, on tiny runs and
sweeps.
"""

import json
import re
import shutil

import numpy as np
import pytest

import tinyjax
from tests.configs import classifier, detector, sweep_classifier, sweep_starting_weights
from tests.tiny_backbones import MICRO_CONVNEXT, MICRO_SWIN, TINY
from tinyjax import average, config, rgn
from tinyjax.core import Variables
from tinyjax.errors import UserError
from tinyjax.population.options import select_members
from tinyjax.run import run_folder
from tinyjax.run.checkpoints import Checkpoints
from tinyjax.run.csv_files import read_rows, write_rows
from tinyjax.run.weights import read_weights, write_weights
from tinyjax.train import main as train_main
from tinyjax.train import train as train_run
from tinyjax.transfer import regularizers
from tinyjax.transfer.starting_weights import load_starting_weights
from tinyjax.transfer.weight_averaging import greedy_soup, weighted_sum

SINGLE_ID = run_folder.member_id({})


def read_params(folder, member=None):
    trees, _ = read_weights(folder / "weights" / (member or SINGLE_ID))
    return trees["params"]


@pytest.fixture(scope="module")
def trained(train_once):
    return train_once("classifier") / "run"


def phased_config(base, start):
    """Linear probing from the weights in `start`, then fine-tuning."""
    base.init, base.optimizer.weight_decay, base.eval_every = str(start), 0.5, 6
    base.phases = ({"freeze": ("backbone",)}, {"optimizer.backbone_lr_scale": 0.5})
    return base


@pytest.fixture(scope="module")
def phased(trained, noise_images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("phased") / "run"
    assert train_run(phased_config(classifier.get_config(str(noise_images)), trained), folder) == 0
    return folder


@pytest.fixture(scope="module")
def sweep(train_once, tmp_path_factory):
    """A copy of a sweep over two sizes and three seeds; the smaller networks are padded."""
    folder = tmp_path_factory.mktemp("sweep") / "run"
    return shutil.copytree(train_once("sweep_classifier") / "run", folder)


# ---- phases


@pytest.mark.parametrize(
    "task", ["classify", pytest.param("detect", marks=pytest.mark.slow)]
)  # the detector's programs take a minute to compile
def test_probing_then_fine_tuning(phased, trained, tmp_path, capsys, task):
    """Two phases in one command: in the first the backbone is frozen, bit for bit and despite
    weight decay; in the second it trains. The run has the weights of the last phase.
    """
    folder = phased
    if task == "detect":
        folder = tmp_path / "run"
        assert train_run(phased_config(detector.get_config(), trained), folder) == 0
    log = (folder / "log.txt").read_text()
    assert "phase 1 of 2: {'freeze': ('backbone',)}" in log
    assert f"starts from {trained}" in log
    assert re.search(r"backbone/stem +\d+ frozen", log)
    assert re.search(r"backbone/stem +\d+ train at 0\.5 of the learning rate", log)

    start, probed, tuned = (
        {**trees["params"], **trees["stats"]}
        for trees, _ in (
            read_weights(path / "weights" / SINGLE_ID)
            for path in (trained, folder / "phase1", folder / "phase2")
        )
    )
    backbone = [p for p in probed if p.startswith(("backbone/stem/", "backbone/stage"))]
    for path in backbone:
        np.testing.assert_array_equal(probed[path], start[path])
    changed = [p for p in backbone if (tuned[p] != probed[p]).any()]
    assert len(changed) > 0.9 * len(backbone)
    last_layer = "head/class_out/kernel" if task == "detect" else "backbone/classifier/kernel"
    assert (probed[last_layer] != tuned[last_layer]).any()

    config_json = json.loads((folder / "config.json").read_text())
    rows = read_rows(folder / "results.csv")
    assert sorted((row["phase"], row["suite"]) for row in rows) == [
        (phase, suite) for phase in "12" for suite in sorted(config_json["data"]["suites"])
    ]
    for path, leaf in read_params(folder).items():
        np.testing.assert_array_equal(leaf, tuned[path])
    assert len(tinyjax.load(folder).classes) == (3 if task == "detect" else 2)
    capsys.readouterr()
    assert train_run(config.from_run(config_json), folder) == 0
    assert "this run is finished" in capsys.readouterr().out
    assert Checkpoints(folder / "phase1/populations/0/checkpoints").latest() == 6


# ---- tinyjax.rgn


def test_rgn_of_a_run(phased, capsys):
    """Also of a run with frozen layers, which are left out."""
    probed = phased / "phase1"
    assert rgn.main(["--workdir", str(probed), "--batches", "2"]) == 0
    layers = read_rows(probed / "rgn.csv")
    assert layers[0]["path"] == "backbone/stem/kernel"
    assert all(float(row["p5"]) <= float(row["median"]) <= float(row["p95"]) for row in layers)
    assert all(float(row["l2_ratio"]) > 0 for row in layers)
    mean = np.mean([float(row["mean"]) for row in layers])
    assert [float(row["rgn"]) for row in read_rows(probed / "results.csv")] == pytest.approx([mean])
    assert (probed / "figures" / "rgn.png").stat().st_size > 5000
    assert f"relative gradient norm {mean:.4g}" in capsys.readouterr().out

    frozen = ["--freeze", "stage<=2", "--freeze", "batchnorm"]
    assert rgn.main(["--workdir", str(probed), "--batches", "2", *frozen]) == 0
    remaining = read_rows(probed / "rgn.csv")
    assert 0 < len(remaining) < len(layers)
    assert not any("/stem/" in row["path"] or "/stage2/" in row["path"] for row in remaining)
    with pytest.raises(UserError, match="--freeze backbone: no layer of the backbone is left"):
        rgn.main(["--workdir", str(probed), "--freeze", "backbone"])


def test_rgn_of_a_run_in_phases_is_that_of_the_last_phase(phased):
    assert rgn.main(["--workdir", str(phased), "--batches", "1"]) == 0
    has_rgn = {(row["phase"], bool(row["rgn"])) for row in read_rows(phased / "results.csv")}
    assert has_rgn == {("1", False), ("2", True)}


@pytest.mark.slow
def test_rgn_of_a_member_is_independent_of_its_population(sweep, noise_images, tmp_path):
    assert rgn.main(["--workdir", str(sweep), "--batches", "2"]) == 0
    layers = read_rows(sweep / "rgn.csv")
    members = [row["member"] for row in read_rows(sweep / "members.csv")]
    assert {row["member"] for row in layers} == {*members}
    assert len({row["rgn"] for row in read_rows(sweep / "results.csv")}) == len(members) == 6
    # The smallest member, with the same weights in a run folder of its own.
    smallest = min(read_rows(sweep / "members.csv"), key=lambda row: int(row["parameters"]))
    single = tmp_path / "single"
    base = sweep_classifier.get_config(str(noise_images))
    members = select_members(sweep_classifier.__file__, base)
    (member,) = (m for m in members if m.id == smallest["member"])
    run_folder.create(single, config.to_json(config.with_fields(base, member.point)))
    trees, metadata = read_weights(sweep / "weights" / member.id)
    write_weights(single / "weights" / SINGLE_ID, Variables(**trees), metadata)
    row = {"member": SINGLE_ID, "suite": "val"}
    write_rows(single / "results.csv", [row], ["member", "suite"])
    assert rgn.main(["--workdir", str(single), "--batches", "2"]) == 0
    member_layers = [row for row in layers if row["member"] == member.id]
    for actual, expected in zip(member_layers, read_rows(single / "rgn.csv"), strict=True):
        assert (actual["path"], actual["kernels"]) == (expected["path"], expected["kernels"])
        for name in ("median", "l2_ratio"):
            assert float(actual[name]) == pytest.approx(float(expected[name]), rel=0.02)


# ---- tinyjax.average


def test_averages_between_start_and_end(phased, capsys):
    argv = ["--workdir", str(phased), "--fractions", "0,0.5,1", "--batches", "2"]
    assert average.main(argv) == 0
    rows = read_rows(phased / "averages" / "results.csv")
    assert [(row["average"], row["suite"]) for row in rows] == [
        (f"fraction-{f}", suite) for f in ("0", "0.5", "1") for suite in ("val",)
    ]
    start, end = (read_params(folder) for folder in (phased / "phase1", phased))
    for fraction in (0, 0.5, 1):
        trees, metadata = read_weights(phased / "averages" / f"fraction-{fraction:g}")
        assert metadata["average"] == {"fraction": fraction}
        for path, leaf in trees["params"].items():
            expected = np.float32(1 - fraction) * start[path] + np.float32(fraction) * end[path]
            np.testing.assert_array_equal(leaf, expected)
    assert (phased / "figures" / "averages.png").stat().st_size > 5000
    assert "fraction-0.5" in capsys.readouterr().out
    with pytest.raises(UserError, match="--fractions 0,2: give numbers from 0 to 1"):
        average.main(["--workdir", str(phased), "--fractions", "0,2"])
    with pytest.raises(UserError, match="is not a run in phases; give the run that it started fr"):
        average.main(["--workdir", str(phased / "phase1")])


def test_soups_of_a_sweep(sweep):
    assert average.main(["--workdir", str(sweep), "--batches", "2"]) == 0
    rows = read_rows(sweep / "averages" / "results.csv")
    assert len({row["average"] for row in rows}) == 4  # two sizes, uniform and greedy
    for row in rows:
        members = row["members"].split()
        assert len(members) == 3 or row["average"].startswith("greedy")
        trees, _ = read_weights(sweep / "averages" / row["average"])
        params = [read_params(sweep, member) for member in members]
        for path, leaf in trees["params"].items():
            np.testing.assert_allclose(leaf, np.mean([p[path] for p in params], 0), atol=1e-6)
    with pytest.raises(UserError, match="is a sweep, whose members are averaged"):
        average.main(["--workdir", str(sweep), "--start", str(sweep)])


def test_greedy_soup_by_hand():
    """Numbers instead of networks; the score is best at 4."""
    values, tried = [1.0, 5.0, 3.0, 4.5], []

    def score_average(kept):
        tried.append([*kept])
        return -abs(np.mean([values[i] for i in kept]) - 4)

    scores = [-abs(value - 4) for value in values]
    assert greedy_soup(scores, score_average) == [3, 2]  # 4.5 first; 5 does not improve it, 3 does
    assert tried == [[3, 1], [3, 2], [3, 2, 0]]


def test_networks_with_different_arrays_cannot_be_averaged(sweep):
    files = (sweep / "weights").glob("*.safetensors")
    smallest, *_, largest = sorted(files, key=lambda file: file.stat().st_size)
    networks = [Variables(**read_weights(file.with_suffix(""))[0]) for file in (smallest, largest)]
    with pytest.raises(UserError, match="networks with different arrays cannot be averaged"):
        weighted_sum(networks, [0.5, 0.5])


# ---- regularizers

REGULARIZER_SWEEP = """
from tests.configs import classifier

def get_config(arg):
    images, start = arg.split(",")
    config = classifier.get_config(images)
    config.init, config.regularizer.batches, config.eval_every = start, 2, 6
    config.optimizer.weight_decay, config.optimizer.backbone_lr_scale = 0.5, 0.5
    return config

def get_hyper(hyper):
    regularizer = lambda name, *strengths: hyper.product(
        [hyper.fixed("regularizer.name", name), hyper.sweep("regularizer.strength", strengths)]
    )
    return hyper.chainit([
        regularizer("rgn", 0.0, 1.0, 1e9),
        regularizer("ewc", 1e6),
        regularizer("fisher", 1e20),
        hyper.fixed("optimizer.auto_rgn", 1.0),
    ])
"""


def run_regularizer_sweep(images, start, folder, *only):
    """Return member ids, squared distances of the backbone from the start, and logged penalties.

    All three are dicts by the member's point.
    """
    file = folder.parent / "regularizers.py"
    file.write_text(REGULARIZER_SWEEP)
    argv = ["--config", f"{file}:{images},{start}", "--workdir", str(folder), *only]
    assert train_main(argv) == 0
    plan = json.loads((folder / "plan.json").read_text())
    ids = {tuple(point.values()): id for id, point in plan["members"].items()}
    start_params = read_params(start)
    distances, penalties = {}, {}
    for point, id in ids.items():
        distances[point] = sum(
            float(((leaf - start_params[path]) ** 2).sum())
            for path, leaf in read_params(folder, id).items()
            if regularizers.is_regularized(path)
        )
        penalties[point] = [
            float(row["value"])
            for row in read_rows(folder / "metrics.csv")
            if (row["member"], row["metric"]) == (id, "regularizer")
        ]
    return ids, distances, penalties


@pytest.mark.slow
def test_regularizers_of_a_population(phased, noise_images, tmp_path):
    folder = tmp_path / "run"
    only = ["--sweep.only", "regularizer.name=rgn"]
    ids, distances, penalties = run_regularizer_sweep(
        noise_images, phased / "phase1", folder, *only
    )
    assert 0 < distances["rgn", 1e9] < distances["rgn", 1.0] < distances["rgn", 0.0]
    assert penalties["rgn", 0.0] == [0.0] * 6
    assert penalties["rgn", 1.0][0] == 0 < penalties["rgn", 1.0][-1]
    # The member with strength 0 equals a single run without a regularizer: the second phase.
    single_config = json.loads((phased / "phase2" / "config.json").read_text())
    assert single_config["regularizer"]["strength"] == 0
    params = read_params(folder, ids["rgn", 0.0])
    for path, leaf in read_params(phased / "phase2").items():
        np.testing.assert_allclose(params[path], leaf, atol=0.01, err_msg=path)


@pytest.mark.slow
def test_other_regularizers(phased, noise_images, tmp_path):
    _, distances, penalties = run_regularizer_sweep(
        noise_images, phased / "phase1", tmp_path / "run"
    )
    for point in (("ewc", 1e6), ("fisher", 1e20)):
        assert 0 < distances[point] < 0.9 * distances["rgn", 0.0], point
        assert penalties[point][0] == 0 < penalties[point][-1]
    assert 0 < distances[(1.0,)] < distances["rgn", 0.0]  # auto_rgn only reduces learning rates
    assert penalties[(1.0,)] == []  # no member of its population is regularized


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [MICRO_CONVNEXT, MICRO_SWIN])
def test_regularized_run_and_average_of_networks_without_batchnorm(
    backbone, noise_images, tmp_path
):
    def run_config(seed, **fields):
        run = classifier.get_config(str(noise_images))
        run.seed, run.model.backbone = seed, backbone
        return config.with_fields(run, fields)

    first, second = tmp_path / "first", tmp_path / "second"
    assert train_run(run_config(0), first) == 0
    regularizer = {"regularizer.name": "ewc", "regularizer.strength": 1.0}
    fields = {"init": str(first), "regularizer.batches": 2, **regularizer}
    assert train_run(run_config(1, **fields), second) == 0
    start, trained = read_params(first), read_params(second)
    assert start.keys() == trained.keys()
    assert any(not np.array_equal(start[path], trained[path]) for path in start)
    argv = ["--workdir", str(second), "--start", str(first), "--fractions", "0.5", "--batches", "2"]
    assert average.main(argv) == 0
    mean, _ = read_weights(second / "averages" / "fraction-0.5")
    for path, leaf in mean["params"].items():
        np.testing.assert_allclose(leaf, (start[path] + trained[path]) / 2, atol=1e-6)


def test_regularizer_needs_starting_weights(noise_images, tmp_path):
    run_config = classifier.get_config(str(noise_images))
    run_config.regularizer.strength = 0.1
    with pytest.raises(
        UserError, match=r"regularizer\.strength = 0\.1: there are no starting weights"
    ):
        train_run(run_config, tmp_path / "run")
    run_config.regularizer.name = "ewcc"
    with pytest.raises(UserError, match=r"regularizer\.name = 'ewcc': did you mean 'ewc'"):
        train_run(run_config, tmp_path / "run")


# ---- starting weights from a sweep


@pytest.mark.slow
def test_members_start_from_the_member_with_their_backbone_and_seed(
    sweep, noise_images, tmp_path, monkeypatch
):
    """Gains of pretraining are judged by pairs of equal seed."""
    monkeypatch.setenv("TINY_STARTS", str(sweep))
    folder = tmp_path / "run"
    argv = [
        "--config",
        f"{sweep_starting_weights.__file__}:{noise_images}",
        "--workdir",
        str(folder),
    ]
    assert train_main([*argv, "--config.optimizer.lr=0.0"]) == 0
    starting_members = {
        (row["backbone"], row["seed"]): row["member"] for row in read_rows(sweep / "members.csv")
    }
    rows = read_rows(folder / "members.csv")
    assert sorted({row["init"] for row in rows}) == ["", str(sweep)]
    for row in rows:
        start = read_params(sweep, starting_members[row["backbone"], row["seed"]])
        params = read_params(folder, row["member"])
        is_equal = all(np.array_equal(leaf, params[path]) for path, leaf in start.items())
        assert is_equal == bool(row["init"])


def test_sweep_without_a_matching_member_is_rejected(sweep, tmp_path):
    for seed, backbone, message in (
        (3, TINY, f"0 members of this sweep are {TINY} of seed 3"),
        (0, "mobilenetv3/s-4", "0 members of this sweep are mobilenetv3/s-4 of seed 0"),
    ):
        with pytest.raises(UserError, match=message):
            load_starting_weights(str(sweep), backbone, seed)
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(UserError, match="this sweep has not finished"):
        load_starting_weights(str(tmp_path), TINY, 0)
