"""A sweep through the command: all members in one program, each as if it were alone."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.configs import sweep
from tinyjax import config
from tinyjax.errors import UserError
from tinyjax.population import search_space
from tinyjax.population.options import select_members
from tinyjax.run import run_folder
from tinyjax.run.weights import read_weights
from tinyjax.train import main as train_main
from tinyjax.train import train as train_run

CONFIG = str(Path(__file__).parents[1] / "configs" / "sweep.py")


def rows(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def by_member(table):
    found = {}
    for row in table:
        found.setdefault(row["member"], []).append(row)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "run"
    assert train_main(["--config", CONFIG, "--workdir", str(folder)]) == 0
    return folder


def test_every_member_has_its_rows_and_its_weights(folder):
    members = select_members(CONFIG, sweep.get_config())
    assert len(members) == 8
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["members"] == {member.id: member.point for member in members}
    assert [p["member_batching"] for p in plan["populations"]] == ["vmap"]
    for table, each in (("members.csv", 1), ("results.csv", 2)):
        found = by_member(rows(folder / table))
        assert found.keys() == plan["members"].keys()
        assert all(len(own) == each for own in found.values())
    for own in rows(folder / "members.csv"):
        point = plan["members"][own["member"]]
        assert (own["backbone"], int(own["seed"])) == (point["model.backbone"], point["seed"])
        weights, about = read_weights(folder / "weights" / own["member"])
        assert sum(leaf.size for leaf in weights["params"].values()) == int(own["parameters"])
        assert about["config"]["optimizer"]["lr"] == point["optimizer.lr"]
    assert len({row["parameters"] for row in rows(folder / "members.csv")}) == 2
    figures = folder / "figures"
    assert {file.name for file in figures.iterdir()} >= {"score_by_size.png", "learning.png"}


@pytest.mark.parametrize("which", [0, pytest.param(7, marks=pytest.mark.slow)])
def test_a_member_is_what_it_is_alone(folder, tmp_path, which):
    """The narrow one and the wide one: the same losses and weights up to float32's rounding."""
    base = sweep.get_config()
    member = select_members(CONFIG, base)[which]
    alone = tmp_path / "alone"
    assert train_run(config.with_fields(base, member.point), alone) == 0

    def losses(table, name):
        return [
            float(row["value"])
            for row in rows(table)
            if (row["member"], row["split"], row["metric"]) == (name, "train", "loss")
        ]

    plain = run_folder.member_id({})
    ours = losses(folder / "metrics.csv", member.id)
    assert len(ours) == 6
    np.testing.assert_allclose(ours, losses(alone / "metrics.csv", plain), rtol=2e-3)
    packed, _ = read_weights(folder / "weights" / member.id)
    own, _ = read_weights(alone / "weights" / plain)
    assert packed["params"].keys() == own["params"].keys()
    for kind in own:
        for path, leaf in own[kind].items():
            assert packed[kind][path].shape == leaf.shape
            np.testing.assert_allclose(packed[kind][path], leaf, atol=0.02, err_msg=path)


def test_a_finished_sweep_is_left_alone_and_another_refused(folder, capsys):
    before = (folder / "results.csv").stat().st_mtime_ns
    argv = ["--config", CONFIG, "--workdir", str(folder)]
    assert train_main(argv) == 0
    assert (folder / "results.csv").stat().st_mtime_ns == before
    assert "this run is finished" in capsys.readouterr().out
    with pytest.raises(UserError, match="holds another sweep"):
        train_main([*argv, "--sweep.limit", "2"])


def test_a_member_that_diverges_stops_and_its_neighbors_do_not_notice(tmp_path):
    base = sweep.get_config()
    ends = []
    for place, rate in (("sound", 2e-3), ("lost", 1e30)):
        rates = search_space.sweep("optimizer.lr", [4e-3, rate, 3e-3])
        members = search_space.make_members(
            base, search_space.chainit([rates, search_space.sweep("seed", [1])])
        )
        assert train_run(base, tmp_path / place, members=members) == 0
        ends.append((members, by_member(rows(tmp_path / place / "results.csv"))))
    (sound, of_sound), (lost, of_lost) = ends
    assert {int(row["diverged_at"]) for row in of_lost[lost[1].id]} <= set(range(1, 6))
    assert {int(row["diverged_at"]) for row in of_sound[sound[1].id]} == {-1}
    # what a member says nothing of it has from the config, not from its neighbors
    _, about = read_weights(tmp_path / "lost" / "weights" / lost[3].id)
    assert about["config"]["optimizer"]["lr"] == base.optimizer.lr
    for i in (0, 2, 3):
        assert of_lost[lost[i].id] == of_sound[sound[i].id]
        files = [
            tmp_path / place / "weights" / f"{sound[i].id}.safetensors"
            for place in ("sound", "lost")
        ]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
def test_members_may_learn_from_parts_of_the_set(tmp_path):
    """Half of the images: packed with a neighbor that has all of them, and alone."""
    base = sweep.get_config()
    members = search_space.make_members(base, search_space.sweep("subset.fraction", [0.5, 1.0]))
    assert train_run(base, tmp_path / "both", members=members) == 0
    alone = config.with_fields(base, members[0].point)
    assert train_run(alone, tmp_path / "alone") == 0
    plain = run_folder.member_id({})
    packed, _ = read_weights(tmp_path / "both" / "weights" / members[0].id)
    own, _ = read_weights(tmp_path / "alone" / "weights" / plain)
    for path, leaf in own["params"].items():
        np.testing.assert_allclose(packed["params"][path], leaf, atol=0.02, err_msg=path)
    whole, _ = read_weights(tmp_path / "both" / "weights" / members[1].id)
    assert any((leaf != packed["params"][path]).any() for path, leaf in whole["params"].items())


@pytest.mark.slow
def test_more_steps_compile_nothing_more(tmp_path, compiled):
    counts = []
    for steps in (6, 6, 9):  # the first warms up what is shared by runs of one process
        compiled.clear()
        base = config.with_fields(sweep.get_config(), {"schedule.steps": steps})
        members = search_space.make_members(base, search_space.sweep("seed", range(3)))
        assert train_run(base, tmp_path / str(len(counts)), members=members) == 0
        counts.append(len(compiled))
    assert counts[1] == counts[2] > 0


@pytest.mark.slow
@pytest.mark.parametrize("how", ["map", "chunks:3"])
def test_members_may_be_lifted_otherwise(folder, tmp_path, how):
    """One after the other or in chunks: the same losses up to float32's rounding."""
    argv = ["--config", CONFIG, "--workdir", str(tmp_path / "run"), "--member-batching", how]
    assert train_main(argv) == 0
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert [p["member_batching"] for p in plan["populations"]] == [how.partition(":")[0]]
    ours, theirs = (
        [float(row["value"]) for row in rows(place / "metrics.csv") if row["metric"] == "loss"]
        for place in (tmp_path / "run", folder)
    )
    np.testing.assert_allclose(ours, theirs, rtol=2e-3)


def test_a_batch_must_fit_into_a_members_part(tmp_path):
    base = sweep.get_config()
    members = search_space.make_members(base, search_space.sweep("subset.fraction", [0.3, 1.0]))
    with pytest.raises(UserError, match=r"batch = 4: the subset of seed 0 .* has 3 images"):
        train_run(base, tmp_path / "run", members=members)


def test_some_members_only(tmp_path, capsys):
    argv = ["--config", CONFIG, "--workdir", str(tmp_path / "run")]
    only = ["--sweep.only", "seed=1", "--sweep.only", "model.backbone=mobilenetv3/s-6"]
    assert train_main([*argv, *only, "--sweep.limit", "1"]) == 0
    (row,) = rows(tmp_path / "run" / "members.csv")
    assert (row["seed"], row["backbone"]) == ("1", "mobilenetv3/s-6")
