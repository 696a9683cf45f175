"""Sweeps through the command: members of one program train as they would in runs of their own."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.configs import sweep as sweep_detector
from tests.configs import sweep_classifier
from tests.tiny_backbones import TINY
from tinyjax import config
from tinyjax.errors import UserError
from tinyjax.population import search_space
from tinyjax.population.options import select_members
from tinyjax.population.search_space import Member
from tinyjax.run import run_folder
from tinyjax.run.csv_files import read_rows
from tinyjax.run.weights import read_weights
from tinyjax.train import main as train_main
from tinyjax.train import train as train_run

CONFIG = sweep_classifier.__file__


def rows_by_member(file):
    groups = {}
    for row in read_rows(file):
        groups.setdefault(row["member"], []).append(row)
    return groups


class Sweep(NamedTuple):
    spec: str
    config: Any
    members: list[Member]
    run: Path
    single_config: Any
    single_run: Path  # of its first member


@pytest.fixture(
    scope="module", params=["classifier", pytest.param("detector", marks=pytest.mark.slow)]
)
def sweep(request, train_once, noise_images):
    single = request.param
    name = "sweep_classifier" if single == "classifier" else "sweep"
    module, single_module = (import_module(f"tests.configs.{n}") for n in (name, single))
    spec, base = f"{module.__file__}:{noise_images}", module.get_config(str(noise_images))
    return Sweep(
        spec,
        base,
        select_members(spec, base),
        train_once(name) / "run",
        single_module.get_config(str(noise_images)),
        train_once(single) / "run",
    )


def test_tables_and_weights_cover_every_member(sweep):
    sweep_run, members = sweep.run, sweep.members
    assert len(members) > 5
    plan = json.loads((sweep_run / "plan.json").read_text())
    assert plan["members"] == {member.id: member.point for member in members}
    assert [p["member_batching"] for p in plan["populations"]] == ["vmap"]
    for table, count in (("members.csv", 1), ("results.csv", len(sweep.config.data.suites))):
        groups = rows_by_member(sweep_run / table)
        assert groups.keys() == plan["members"].keys()
        assert all(len(rows) == count for rows in groups.values())
    rows = read_rows(sweep_run / "members.csv")
    for row in rows:
        point = plan["members"][row["member"]]
        assert (row["backbone"], int(row["seed"])) == (point["model.backbone"], point["seed"])
        weights, metadata = read_weights(sweep_run / "weights" / row["member"])
        assert sum(leaf.size for leaf in weights["params"].values()) == int(row["parameters"])
        assert metadata["config"]["optimizer"]["lr"] == point["optimizer.lr"]
    assert len({row["parameters"] for row in rows}) == 2
    figures = sweep_run / "figures"
    assert {file.name for file in figures.iterdir()} >= {"score_by_size.png", "learning.png"}


def check_equal_up_to_rounding(sweep_run, member, single_run):
    """Compare losses and weights; a vmapped program rounds differently in float32."""

    def read_losses(table, id):
        return [
            float(row["value"])
            for row in read_rows(table)
            if (row["member"], row["split"], row["metric"]) == (id, "train", "loss")
        ]

    single_id = run_folder.member_id({})
    losses = read_losses(sweep_run / "metrics.csv", member.id)
    assert len(losses) == 6
    expected_losses = read_losses(single_run / "metrics.csv", single_id)
    np.testing.assert_allclose(losses, expected_losses, rtol=2e-3)
    actual, _ = read_weights(sweep_run / "weights" / member.id)
    expected, _ = read_weights(single_run / "weights" / single_id)
    assert actual["params"].keys() == expected["params"].keys()
    for collection in expected:
        for path, leaf in expected[collection].items():
            assert actual[collection][path].shape == leaf.shape
            np.testing.assert_allclose(actual[collection][path], leaf, atol=0.02, err_msg=path)


def test_a_narrow_member_equals_a_single_run(sweep):
    member, single_config = sweep.members[0], sweep.single_config
    fields = config.with_fields(single_config, member.point)
    assert config.to_json(fields) == config.to_json(single_config)
    check_equal_up_to_rounding(sweep.run, member, sweep.single_run)


@pytest.mark.slow
def test_a_wide_member_equals_a_single_run(sweep, tmp_path):
    member = sweep.members[-1]
    assert train_run(config.with_fields(sweep.config, member.point), tmp_path / "run") == 0
    check_equal_up_to_rounding(sweep.run, member, tmp_path / "run")


def test_a_finished_sweep_is_left_unchanged_and_another_is_rejected(sweep, capsys):
    before = (sweep.run / "results.csv").stat().st_mtime_ns
    argv = ["--config", sweep.spec, "--workdir", str(sweep.run)]
    assert train_main(argv) == 0
    assert (sweep.run / "results.csv").stat().st_mtime_ns == before
    assert "this run is finished" in capsys.readouterr().out
    with pytest.raises(UserError, match="holds another sweep"):
        train_main([*argv, "--sweep.limit", "2"])


def test_a_diverging_member_does_not_affect_the_others(sweep, tmp_path):
    base = sweep.config
    points = [{**member.point} for member in sweep.members]
    points[2] |= {"optimizer.lr": 1e30}
    assert points[0].pop("optimizer.lr") == base.optimizer.lr  # then the config's value applies
    members = search_space.make_members(base, points)
    folder = tmp_path / "run"
    assert train_run(base, folder, members=members) == 0

    def read_member(folder, id):
        rows = [{**r, "member": ""} for r in rows_by_member(folder / "results.csv")[id]]
        return rows, (folder / "weights" / f"{id}.safetensors").read_bytes()

    for i, (member, expected) in enumerate(zip(members, sweep.members, strict=True)):
        (rows, weights), (expected_rows, expected_weights) = (
            read_member(folder, member.id), read_member(sweep.run, expected.id)
        )  # fmt: skip
        assert {int(row["diverged_at"]) for row in expected_rows} == {-1}
        if i == 2:
            assert {int(row["diverged_at"]) for row in rows} <= set(range(1, 6))
        else:
            assert rows == expected_rows
            assert weights == expected_weights
    _, metadata = read_weights(folder / "weights" / members[0].id)
    assert metadata["config"]["optimizer"]["lr"] == base.optimizer.lr


@pytest.mark.slow
def test_members_train_on_subsets(tmp_path):
    """A member with half of the images equals a single run, next to a member with all images."""
    base = sweep_detector.get_config()
    members = search_space.make_members(base, search_space.sweep("subset.fraction", [0.5, 1.0]))
    assert train_run(base, tmp_path / "sweep", members=members) == 0
    assert train_run(config.with_fields(base, members[0].point), tmp_path / "single") == 0
    half, full = (read_weights(tmp_path / "sweep" / "weights" / m.id)[0] for m in members)
    single, _ = read_weights(tmp_path / "single" / "weights" / run_folder.member_id({}))
    for path, leaf in single["params"].items():
        np.testing.assert_allclose(half["params"][path], leaf, atol=0.02, err_msg=path)
    assert any((leaf != half["params"][path]).any() for path, leaf in full["params"].items())


@pytest.mark.slow
def test_more_steps_compile_no_further_programs(tmp_path, compiled):
    counts = []
    for steps in (6, 6, 9):  # the first run compiles what all runs of a process share
        compiled.clear()
        base = config.with_fields(sweep_detector.get_config(), {"schedule.steps": steps})
        members = search_space.make_members(base, search_space.sweep("seed", range(3)))
        assert train_run(base, tmp_path / str(len(counts)), members=members) == 0
        counts.append(len(compiled))
    assert counts[1] == counts[2] > 0


@pytest.mark.slow
@pytest.mark.parametrize("batching", ["map", "chunks:3"])
def test_other_member_batching_gives_the_same_losses(sweep, tmp_path, batching):
    """Up to float32's rounding."""
    argv = [
        "--config",
        sweep.spec,
        "--workdir",
        str(tmp_path / "run"),
        "--member-batching",
        batching,
    ]
    assert train_main(argv) == 0
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert [p["member_batching"] for p in plan["populations"]] == [batching.partition(":")[0]]
    losses, vmap_losses = (
        [float(r["value"]) for r in read_rows(run / "metrics.csv") if r["metric"] == "loss"]
        for run in (tmp_path / "run", sweep.run)
    )
    np.testing.assert_allclose(losses, vmap_losses, rtol=2e-3)


def test_a_batch_must_fit_into_a_members_subset(tmp_path):
    base = sweep_detector.get_config()
    members = search_space.make_members(base, search_space.sweep("subset.fraction", [0.3, 1.0]))
    with pytest.raises(UserError, match=r"batch = 4: the subset of seed 0 .* has 3 images"):
        train_run(base, tmp_path / "run", members=members)


def test_only_selected_members_are_trained(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(
        "tinyjax.training.sweep.train_sweep",
        lambda config, task, members, *_: trained.extend(members) or 0,
    )
    argv = ["--config", CONFIG, "--workdir", str(tmp_path / "run")]
    only = ["--sweep.only", "seed=1", "--sweep.only", f"model.backbone={TINY}"]
    assert train_main([*argv, *only, "--sweep.limit", "1"]) == 0
    (member,) = trained
    assert (member.point["seed"], member.point["model.backbone"]) == (1, TINY)
