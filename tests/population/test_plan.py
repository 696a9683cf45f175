"""Plans: which members share a program."""

import itertools
import json
import math

import jax
import pytest

from tests.configs.classifier import get_config
from tests.tiny_backbones import TINY, TINY_GHOSTNET, TINY_GHOSTNET_WIDE, TINY_WIDE
from tinyjax import models
from tinyjax.config import detector
from tinyjax.errors import UserError
from tinyjax.models import convnext, flops, swin
from tinyjax.population import search_space
from tinyjax.population.cost_model import cost_model
from tinyjax.population.options import parse_member_batching
from tinyjax.population.plan import (
    MEMORY_FRACTION,
    Machine,
    group_members,
    load_or_make_plan,
    make_plan,
)
from tinyjax.population.search_space import Member, product, sweep
from tinyjax.run import runtime
from tinyjax.tasks import get_task
from tinyjax.train import train as train_run

TASK = get_task("classify")


def make_members(*sizes, group=""):
    return [Member(f"{group}{i}-{size}", {"size": size}) for i, size in enumerate(sizes)]


def group_sizes(members, cost, group_key=lambda member: 0):
    """The sizes of each population's members."""
    groups = group_members(members, group_key, lambda member: (member.point["size"],), cost)
    return [[member.point["size"] for member in group] for group in groups]


def padded_cost(compile_time):
    """The cost of compiling once, and of training all members at the largest size."""
    return lambda sizes, members: compile_time + members * max(sizes)[0]


def test_sizes_are_split_where_that_is_cheapest():
    members = make_members(1, 2, 100, 1, 101)
    assert group_sizes(members, padded_cost(0.5)) == [[1, 1], [2], [100], [101]]
    assert group_sizes(members, padded_cost(10)) == [[1, 2, 1], [100, 101]]
    assert group_sizes(members, padded_cost(1000)) == [[1, 2, 100, 1, 101]]


def test_grouping_costs_as_much_as_the_best_of_all_splits():
    sizes = (1, 2, 2, 5, 7, 11, 12)
    for compile_time in (0.1, 1, 3, 6, 10, 30, 100):
        cost = padded_cost(compile_time)
        distinct = sorted(set(sizes))

        def total_cost(groups, cost=cost):
            return sum(cost(tuple((s,) for s in set(group)), len(group)) for group in groups)

        costs = []
        for cuts in itertools.product([0, 1], repeat=len(distinct) - 1):
            groups, start = [], 0
            for end in [i + 1 for i, cut in enumerate(cuts) if cut] + [len(distinct)]:
                group = distinct[start:end]
                groups.append([s for s in sizes if s in group])
                start = end
            costs.append(total_cost(groups))
        actual = total_cost(group_sizes(make_members(*sizes), cost))
        assert actual == pytest.approx(min(costs))


def test_members_that_cannot_share_a_program_are_separated():
    members = [*make_members(1, 2, group="a"), *make_members(1, 2, group="b")]
    sharing_pays = lambda sizes, members: 0.0 if len(sizes) == 1 else -1.0  # noqa: E731
    groups = group_sizes(members, sharing_pays, group_key=lambda member: member.id[0])
    assert groups == [[1, 2], [1, 2]]
    impossible = lambda sizes, members: 1.0 if len(sizes) == 1 else math.inf  # noqa: E731
    assert group_sizes(members, impossible) == [[1, 1], [2, 2]]


def test_only_fields_outside_the_program_vary_within_a_population(tmp_path):
    config = get_config()
    config.schedule.steps = 10  # compiling dominates the cost
    members = search_space.make_members(
        config,
        product(
            [
                sweep("model.backbone", [TINY, TINY_WIDE, "efficientnet/b-7"]),
                sweep("batch", [2, 4]),
                sweep("optimizer.lr", [0.1, 0.2]),
                sweep("freeze", [(), ("stem",)]),
            ]
        ),
    )
    plan = load_or_make_plan(config, TASK, members, tmp_path / "plan.json")
    assert sorted(id for population in plan for id in population.members) == sorted(
        member.id for member in members
    )
    points = {member.id: tuple(member.point.values()) for member in members}
    programs = [
        {(name.partition("/")[0], batch, freeze) for name, batch, _, freeze in map(points.get, ids)}
        for ids in (population.members for population in plan)
    ]
    assert len(programs) == 8  # 2 families x 2 batches x 2 values of `freeze`
    assert all(len(fields) == 1 for fields in programs)
    assert {population.member_batching for population in plan} == {"vmap"}


def test_sizes_share_a_program_where_their_blocks_can_be_padded(tmp_path):
    config = get_config()
    config.schedule.steps = 10  # compiling dominates the cost
    # Networks of equal width, except for the head, can be padded; the units of others cannot.
    alone, equal = ["shufflenetv2/n-5"], ["shufflenetv2/1.0@w0.103", "shufflenetv2/1.0@w0.104"]
    groups = [alone, equal, [TINY_GHOSTNET, TINY_GHOSTNET_WIDE]]
    backbones = sweep("model.backbone", [name for group in groups for name in group])
    members = search_space.make_members(config, product([backbones, sweep("seed", [0, 1])]))
    plan = load_or_make_plan(config, TASK, members, tmp_path / "plan.json")
    names = {member.id: member.point["model.backbone"] for member in members}
    populations = [sorted(names[id] for id in population.members) for population in plan]
    assert sorted(populations) == sorted(sorted(2 * group) for group in groups)


def test_a_plan_is_written_once_and_reused(tmp_path):
    config, file = get_config(), tmp_path / "plan.json"
    members = search_space.make_members(config, sweep("seed", range(3)))
    plan = load_or_make_plan(config, TASK, members, file)
    stored = json.loads(file.read_text())
    assert stored["populations"][0]["members"] == [member.id for member in members]
    # The file is used even if a new plan would differ.
    stored["populations"] = [
        {"members": [member.id], "member_batching": "none", "chunk_size": 0} for member in members
    ]
    file.write_text(json.dumps(stored))
    assert [p.members for p in load_or_make_plan(config, TASK, members, file)] == [
        (m.id,) for m in members
    ]
    assert len(plan) == 1
    # Before a population has begun, another sweep may replace the plan.
    assert len(load_or_make_plan(config, TASK, members[:2], file)[0].members) == 2
    (tmp_path / "populations" / "0").mkdir(parents=True)
    (tmp_path / "populations" / "0" / "members.csv").touch()
    with pytest.raises(UserError, match="holds another sweep"):
        load_or_make_plan(config, TASK, members, file)


def test_members_that_do_not_fit_in_memory_are_computed_in_chunks(tmp_path, monkeypatch):
    config, file = get_config(), tmp_path / "plan.json"
    members = search_space.make_members(config, sweep("seed", range(8)))
    model = cost_model(config, TASK)
    member_memory = model.memory(model.size_key(members[0]))
    memory = int(3.5 * member_memory / MEMORY_FRACTION)
    monkeypatch.setattr(runtime, "total_memory", lambda: memory)
    (population,) = load_or_make_plan(config, TASK, members, file)
    assert (population.member_batching, population.chunk_size) == ("chunks", 3)
    assert (
        load_or_make_plan(config, TASK, members[:3], tmp_path / "few.json")[0].member_batching
        == "vmap"
    )
    # A sweep that still runs out of memory may resume with another method for the same plan.
    assert load_or_make_plan(config, TASK, members, file, "chunks:2") == [
        population._replace(chunk_size=2)
    ]
    assert load_or_make_plan(config, TASK, members, file) == [population._replace(chunk_size=2)]
    assert load_or_make_plan(config, TASK, members, file, "map") == [
        population._replace(member_batching="map", chunk_size=0)
    ]


@pytest.mark.parametrize(
    ("backbone", "fitting", "expected"),
    [
        ("mobilenetv3/s-3", 64, ("wide", 8)),
        ("efficientnet/b-5", 3, ("wide", 3)),
        ("efficientnet/b-5", 1, ("map", 0)),
        ("resnet/50", 64, ("map", 0)),
    ],
)
def test_members_are_side_by_side_on_a_tpu(backbone, fitting, expected):
    """fitting: the number of members that fit into a chip's memory."""
    config = get_config()
    config.model.backbone = backbone
    members = search_space.make_members(config, sweep("seed", range(16)))
    model = cost_model(config, TASK, "tpu")
    member_memory = model.memory(model.size_key(members[0]))
    machine = Machine("tpu", 1, int((fitting + 0.5) * member_memory / MEMORY_FRACTION))
    (population,) = make_plan(members, model, machine=machine)
    assert (population.member_batching, population.chunk_size) == expected
    (population,) = make_plan(members, model, "vmap", machine)
    assert population.member_batching == "vmap"


def test_costs_on_a_tpu_are_those_of_the_outputs_of_layers():
    config, names = get_config(), ("mobilenetv3/s-1", "mobilenetv3/s-3")
    shape = (1, *config.crop_size, 1)
    networks = (models.build(name, classes=1) for name in names)
    expected = [flops.count_multiply_adds_and_outputs(network, shape)[1] for network in networks]
    model = cost_model(config, TASK, "tpu")
    keys = [(model.size_key(Member(name, {"model.backbone": name})),) for name in names]
    costs = [model.cost(key, 1) - model.cost(key, 0) for key in keys]
    assert costs[0] / costs[1] == pytest.approx(expected[0] / expected[1])


def test_networks_with_layer_norm_of_two_sizes_get_a_program_each(monkeypatch):
    names = ["convnext/micro", "convnext/wider", "swin/micro", "swin/wider"]
    convnext_wider = convnext.make_architecture(16, (1, 1, 1, 1))
    swin_wider = swin.make_architecture(16, (2, 1, 1, 1), heads=1)
    monkeypatch.setitem(convnext.VARIANTS, "wider", convnext_wider)
    monkeypatch.setitem(swin.VARIANTS, "wider", swin_wider)
    members = [
        Member(f"{name}-{seed}", {"model.backbone": name, "seed": seed})
        for name in names
        for seed in (0, 1)
    ]
    model = cost_model(get_config(), TASK)
    groups = group_members(members, model.group_key, model.size_key, model.cost)
    backbones = [[member.point["model.backbone"] for member in group] for group in groups]
    assert sorted(backbones) == [[name, name] for name in names]


def test_costs_follow_a_members_batch_and_steps():
    config = get_config()
    model = cost_model(config, TASK)
    small, large = (
        model.size_key(Member("", point)) for point in ({}, {"batch": 8, "schedule.steps": 12})
    )
    compile_cost = model.cost((small,), 0)
    assert model.cost((large,), 1) - compile_cost == pytest.approx(
        4 * (model.cost((small,), 1) - compile_cost)
    )
    assert model.memory(large) > model.memory(small)


def test_trained_share_counts_parameters_that_are_not_frozen():
    model = cost_model(get_config(), TASK)
    variables = TASK.build(get_config(), 1)
    params, _ = jax.eval_shape(lambda: models.init(variables, 0, (1, 32, 32, 1)))
    last = sum(x.size for path, x in params.items() if path.startswith("backbone/classifier/"))
    frozen = Member("", {"freeze": ("all but last layer",)})
    assert model.trained_share(Member("", {})) == 1
    assert model.trained_share(frozen) == last / sum(x.size for x in params.values())


def test_costs_follow_the_fields_of_box_heads():
    config, task = detector("cascade_rcnn"), get_task("detect")
    config.model.backbone = TINY
    model = cost_model(config, task)
    small, wide = (model.size_key(Member("", {"roi.width": width})) for width in (8, 16))
    per_unit = 25 * config.model.neck_width + 1 + 2 + 4  # fc, its bias, classes, boxes
    assert model.parameters(wide) - model.parameters(small) == 3 * 8 * per_unit
    few, many = (
        model.size_key(Member("", {"proposals.max_proposals": count})) for count in (32, 64)
    )
    assert small < wide
    assert few < many


def test_member_batching_needs_a_sweep(tmp_path):
    with pytest.raises(UserError, match="--member-batching map: only a sweep has members to batch"):
        train_run(get_config(), tmp_path / "run", member_batching="map")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["chunks", "chunks:0", "vmap:2", "both", "chunks:x"])
def test_invalid_member_batching_is_rejected(text):
    with pytest.raises(
        UserError, match=f"--member-batching {text}: give vmap, map, chunks:N or wide:N"
    ):
        parse_member_batching(text)


def test_ten_thousand_members_are_planned(tmp_path):
    config = get_config()
    rates = [0.001 * i for i in range(1, 101)]
    members = search_space.make_members(
        config,
        product([sweep("model.backbone", [TINY, TINY_WIDE]), sweep("optimizer.lr", rates),
                 sweep("seed", range(50))]),
    )  # fmt: skip
    plan = load_or_make_plan(config, TASK, members, tmp_path / "plan.json")
    assert sum(len(population.members) for population in plan) == len(members) == 10_000
