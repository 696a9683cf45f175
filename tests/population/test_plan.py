"""Which members share a program."""

import itertools
import json
import math

import pytest

from tests.configs.detector import get_config
from tinyjax.errors import UserError
from tinyjax.population import search_space
from tinyjax.population.cost_model import cost_model
from tinyjax.population.options import parse_member_batching
from tinyjax.population.plan import MEMORY_FRACTION, group_members, load_or_make_plan
from tinyjax.population.search_space import Member, product, sweep
from tinyjax.run import runtime
from tinyjax.tasks import get_task
from tinyjax.train import train as train_run

TASK = get_task("detect")


def of(*sizes, kind=""):
    return [Member(f"{kind}{i}-{size}", {"size": size}) for i, size in enumerate(sizes)]


def populations(members, cost, apart=lambda member: 0):
    found = group_members(members, apart, lambda member: (member.point["size"],), cost)
    return [[member.point["size"] for member in part] for part in found]


def padded(compile_time):
    return lambda rungs, members: compile_time + members * max(rungs)[0]


def test_a_ladder_is_cut_where_that_is_cheapest():
    members = of(1, 2, 100, 1, 101)
    assert populations(members, padded(0.5)) == [[1, 1], [2], [100], [101]]
    assert populations(members, padded(10)) == [[1, 2, 1], [100, 101]]
    assert populations(members, padded(1000)) == [[1, 2, 100, 1, 101]]


def test_it_is_the_cheapest_of_all_cuts():
    sizes = (1, 2, 2, 5, 7, 11, 12)
    for compile_time in (0.1, 1, 3, 6, 10, 30, 100):
        cost = padded(compile_time)
        ladder = sorted(set(sizes))

        def seconds(parts, cost=cost):
            return sum(cost(tuple((s,) for s in set(part)), len(part)) for part in parts)

        ways = []
        for cuts in itertools.product([0, 1], repeat=len(ladder) - 1):
            parts, begin = [], 0
            for end in [i + 1 for i, cut in enumerate(cuts) if cut] + [len(ladder)]:
                own = ladder[begin:end]
                parts.append([s for s in sizes if s in own])
                begin = end
            ways.append(seconds(parts))
        assert seconds(populations(of(*sizes), cost)) == pytest.approx(min(ways))


def test_what_cannot_share_does_not():
    members = [*of(1, 2, kind="a"), *of(1, 2, kind="b")]
    free = lambda rungs, members: 0.0 if len(rungs) == 1 else -1.0  # noqa: E731
    apart = populations(members, free, apart=lambda member: member.id[0])
    assert apart == [[1, 2], [1, 2]]
    never = lambda rungs, members: 1.0 if len(rungs) == 1 else math.inf  # noqa: E731
    assert populations(members, never) == [[1, 1], [2, 2]]


def sizes_of(found, members):
    names = {member.id: member.point for member in members}
    return [[tuple(names[id].values()) for id in population.members] for population in found]


def test_numbers_share_a_program_and_what_a_program_is_made_of_does_not(tmp_path):
    config = get_config()
    config.schedule.steps = 10  # compiling is what costs
    members = search_space.make_members(
        config,
        product(
            [
                sweep("model.backbone", ["mobilenetv3/s-6", "mobilenetv3/s-1", "efficientnet/b-7"]),
                sweep("batch", [2, 4]),
                sweep("optimizer.lr", [0.1, 0.2]),
                sweep("freeze", [(), ("stem",)]),
            ]
        ),
    )
    found = load_or_make_plan(config, TASK, members, tmp_path / "plan.json")
    assert sorted(id for population in found for id in population.members) == sorted(
        member.id for member in members
    )
    kinds = [
        {(name.partition("/")[0], batch, freeze) for name, batch, _, freeze in own}
        for own in sizes_of(found, members)
    ]
    assert len(kinds) == 8  # 2 families x 2 batches x 2 freezings
    assert all(len(kind) == 1 for kind in kinds)
    assert {population.member_batching for population in found} == {"vmap"}


def test_a_plan_is_written_once_and_kept(tmp_path):
    config, file = get_config(), tmp_path / "plan.json"
    members = search_space.make_members(config, sweep("seed", range(3)))
    found = load_or_make_plan(config, TASK, members, file)
    stored = json.loads(file.read_text())
    assert stored["populations"][0]["members"] == [member.id for member in members]
    # another program would plan otherwise: what is written counts
    stored["populations"] = [
        {"members": [member.id], "member_batching": "none", "chunk_size": 0} for member in members
    ]
    file.write_text(json.dumps(stored))
    assert [p.members for p in load_or_make_plan(config, TASK, members, file)] == [
        (m.id,) for m in members
    ]
    assert len(found) == 1
    # nothing has begun: another sweep may take its place
    assert len(load_or_make_plan(config, TASK, members[:2], file)[0].members) == 2
    (tmp_path / "populations" / "0").mkdir(parents=True)
    (tmp_path / "populations" / "0" / "members.csv").touch()
    with pytest.raises(UserError, match="holds another sweep"):
        load_or_make_plan(config, TASK, members, file)


def test_members_that_do_not_fit_are_taken_in_chunks(tmp_path, monkeypatch):
    config, file = get_config(), tmp_path / "plan.json"
    members = search_space.make_members(config, sweep("seed", range(8)))
    by = cost_model(config, TASK)
    one = by.memory(by.size_key(members[0]))
    monkeypatch.setattr(runtime, "total_memory", lambda: int(3.5 * one / MEMORY_FRACTION))
    (crowded,) = load_or_make_plan(config, TASK, members, file)
    assert (crowded.member_batching, crowded.chunk_size) == ("chunks", 3)
    assert (
        load_or_make_plan(config, TASK, members[:3], tmp_path / "few.json")[0].member_batching
        == "vmap"
    )
    # who runs out of memory all the same may go on with the same plan, lifted otherwise
    assert load_or_make_plan(config, TASK, members, file, "chunks:2") == [
        crowded._replace(chunk_size=2)
    ]
    assert load_or_make_plan(config, TASK, members, file) == [crowded._replace(chunk_size=2)]
    assert load_or_make_plan(config, TASK, members, file, "map") == [
        crowded._replace(member_batching="map", chunk_size=0)
    ]


def test_members_with_their_own_batch_and_steps_are_planned_by_them():
    config = get_config()
    by = cost_model(config, TASK)
    plain, more = Member("a", {}), Member("b", {"batch": 8, "schedule.steps": 12})
    start = by.cost((by.size_key(plain),), 0)
    assert by.cost((by.size_key(more),), 1) - start == pytest.approx(
        4 * (by.cost((by.size_key(plain),), 1) - start)
    )
    assert by.memory(by.size_key(more)) > by.memory(by.size_key(plain))


def test_a_plain_run_has_nothing_to_lift(tmp_path):
    with pytest.raises(UserError, match="--member-batching map: only a sweep has members to batch"):
        train_run(get_config(), tmp_path / "run", batching="map")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("how", ["chunks", "chunks:0", "vmap:2", "both", "chunks:x"])
def test_a_lift_that_is_none(how):
    with pytest.raises(UserError, match=f"--member-batching {how}: give vmap, map, or chunks:N"):
        parse_member_batching(how)


def test_ten_thousand_members_are_planned(tmp_path):
    config = get_config()
    rates = [0.001 * i for i in range(1, 101)]
    ladder = [f"mobilenetv3/s-{k}" for k in range(2, 7)]
    members = search_space.make_members(
        config,
        product([sweep("model.backbone", ladder), sweep("optimizer.lr", rates),
                 sweep("seed", range(20))]),
    )  # fmt: skip
    found = load_or_make_plan(config, TASK, members, tmp_path / "plan.json")
    assert sum(len(population.members) for population in found) == len(members) == 10_000
