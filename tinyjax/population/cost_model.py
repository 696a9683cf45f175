"""Estimated costs of populations, which a plan minimizes and `--dry-run` prints."""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from tinyjax.core import Task, Variables
from tinyjax.errors import shorten
from tinyjax.population.search_space import Member

# Order of magnitude on two cores (docs/performance.md); only ratios matter.
MULTIPLY_ADDS_PER_SECOND = 1.2e10
NETWORK_GROUPS = ("model", "roi", "proposals", "fdr")  # fields that a network is built from
FORWARD_PASSES = 3  # a step has the multiply-adds of three forward passes
# A TPU's time is that of its bytes. Counts of XLA:TPU for eight members side by side, in bfloat16
# (docs/scaling.md): 31 to 48 for classifiers S-3, S-1 and B-2, 67 for the point detector of S-1;
# and the bandwidth of a v5e.
TPU_BYTES_PER_OUTPUT = 45  # of a layer, per window and step
TPU_BYTES_PER_SECOND = 8.19e11
TPU_COMPILE_SECONDS = 100


class SizeKey(NamedTuple):
    """Sort key of a member: its size, then the fields that determine its cost."""

    size: int  # multiply-adds per window
    backbone: str
    crop_size: tuple[int, int]  # height, width
    batch: int
    steps: int
    network: tuple[tuple[str, Any], ...]  # other fields of `NETWORK_GROUPS` that the member sets


class CostModel(NamedTuple):
    """Properties of members that a plan depends on, as functions."""

    group_key: Callable[[Member], Hashable]  # equal for members that may share a program
    size_key: Callable[[Member], SizeKey]
    cost: Callable[[tuple[SizeKey, ...], int], float]  # (sizes, number of members) -> seconds
    padded_size: Callable[[tuple[SizeKey, ...]], float]  # multiply-adds per window and member
    parameters: Callable[[SizeKey], int]
    trained_share: Callable[[Member], float]  # fraction of the parameters that are not frozen
    memory: Callable[[SizeKey], int]  # estimated bytes of a member's step


def cost_model(config: ConfigDict, task: Task, platform: str = "cpu") -> CostModel:
    """A cost model that counts operations from shapes alone.

    platform: as JAX names it; the cost of a TPU is that of its bytes.
    Networks are counted with one class and one channel: others cost the same for all members.
    """
    import jax

    from tinyjax import config as configs
    from tinyjax import models
    from tinyjax.models import flops
    from tinyjax.population.networks import member_config
    from tinyjax.population.stack import VIEW_FIELDS, may_vary
    from tinyjax.transfer.freezing import lr_multipliers

    def backbone_of(member: Member) -> str:
        return member.point.get("model.backbone", config.model.backbone)

    def build(backbone: str, fields: tuple[tuple[str, Any], ...]):
        point = {**dict(fields), "model.backbone": backbone}
        return task.build(configs.with_fields(config, point), 1)

    @cache
    def batchnorm_eps(init: str, backbone: str, seed: int) -> float:
        point = {"init": init, "model.backbone": backbone, "seed": seed}
        return member_config(config, Member("", point)).model.batchnorm_eps

    def group_key(member: Member) -> Hashable:
        point, backbone = member.point, backbone_of(member)
        must_match = ("freeze", *(VIEW_FIELDS if config.data.stream else ()))
        fields = {f: v for f, v in point.items() if f in must_match or not may_vary(f)}
        init = point.get("init", config.init)
        # If `init` is a sweep, the seed selects one of its members.
        seed = point.get("seed", config.seed) if init else 0
        family = backbone.partition("/")[0]
        return family, batchnorm_eps(init, backbone, seed), repr(sorted(fields.items()))

    @cache
    def window_costs(backbone: str, fields: tuple, crop_size: tuple[int, int]) -> tuple[int, int]:
        """Multiply-adds and layer outputs per window."""
        return flops.count_multiply_adds_and_outputs(
            build(backbone, fields), *_input_shapes(task, crop_size)
        )

    @cache
    def variables(key: SizeKey) -> Variables:
        """Shapes instead of arrays."""
        model, inputs = build(key.backbone, key.network), _input_shapes(task, config.crop_size)
        return Variables(*jax.eval_shape(lambda: models.init(model, 0, *inputs)))

    def parameters(key: SizeKey) -> int:
        return flops.count_parameters(variables(key).params)

    def trained_share(member: Member) -> float:
        params, stats = variables(size_key(member))
        multipliers = lr_multipliers((*params, *stats), configs.with_fields(config, member.point))
        trained = {path: leaf for path, leaf in params.items() if multipliers[path]}
        return flops.count_parameters(trained) / flops.count_parameters(params)

    def memory(key: SizeKey) -> int:
        # float32: weights, Adam's two moments, averaged and best weights; and for each layer its
        # output, normalized output, activation, and the gradient of one of them
        activations = 4 * key.batch * window_costs(key.backbone, key.network, key.crop_size)[1]
        return 4 * (5 * parameters(key) + activations)

    def size_key(member: Member) -> SizeKey:
        backbone, get = backbone_of(member), member.point.get
        fields = _network_fields(member)
        crop_size = tuple(get("crop_size", config.crop_size))
        size, _ = window_costs(backbone, fields, crop_size)
        steps = get("schedule.steps", config.schedule.steps)
        return SizeKey(size, backbone, crop_size, get("batch", config.batch), steps, fields)

    def cost(keys: tuple[SizeKey, ...], num_members: int) -> float:
        if platform != "tpu":
            return _cpu_cost(task, keys, num_members)
        outputs = max(window_costs(k.backbone, k.network, k.crop_size)[1] for k in keys)
        return _tpu_cost(outputs, keys, num_members)

    return CostModel(group_key, size_key, cost, _padded_size, parameters, trained_share, memory)


def _cpu_cost(task: Task, keys: tuple[SizeKey, ...], num_members: int) -> float:
    """Estimated seconds of a population on two cores."""
    _, _, crop_size, batch, steps, _ = keys[0]  # equal for all keys
    window_seconds = _window_seconds(task, crop_size, _padded_size(keys))
    return task.compile_seconds + num_members * steps * batch * window_seconds


def _tpu_cost(outputs: int, keys: tuple[SizeKey, ...], num_members: int) -> float:
    """Estimated seconds of a population on one chip. outputs: of layers, of the widest member."""
    _, _, _, batch, steps, _ = keys[0]  # equal for all keys
    padding = _padded_size(keys) / max(keys).size
    window_seconds = TPU_BYTES_PER_OUTPUT * outputs * padding / TPU_BYTES_PER_SECOND
    return TPU_COMPILE_SECONDS + num_members * steps * batch * window_seconds


def _window_seconds(task: Task, crop_size: tuple[int, int], multiply_adds: float) -> float:
    """Estimated seconds of a training step per window."""
    pixel_seconds = task.pixel_seconds * math.prod(crop_size)
    return pixel_seconds + FORWARD_PASSES * multiply_adds / MULTIPLY_ADDS_PER_SECOND


def _input_shapes(task: Task, crop_size: tuple[int, int]) -> list[tuple[int, ...]]:
    """The shape of each input, for one window."""
    return [(1, *crop_size, 1) if name == "image" else (1,) for name in task.inputs]


def _network_fields(member: Member) -> tuple[tuple[str, Any], ...]:
    """The fields of `NETWORK_GROUPS` that a member sets, except for its backbone."""
    fields = sorted(member.point.items())
    return tuple(
        (field, value)
        for field, value in fields
        if field.partition(".")[0] in NETWORK_GROUPS and field != "model.backbone"
    )


@cache
def _padded_size(keys: tuple[SizeKey, ...]) -> float:
    """Multiply-adds per window and member of the supernet; infinite if there is none."""
    from tinyjax import models
    from tinyjax.models import flops
    from tinyjax.models.supernet import merge_architectures

    architectures = [*dict.fromkeys(models.architecture(key.backbone) for key in keys)]
    if len(architectures) == 1:
        return max(keys).size
    try:
        merged = merge_architectures(architectures)
    except ValueError:
        return float("inf")
    widest = max(map(flops.multiply_adds_per_pixel, architectures))
    return max(keys).size * flops.multiply_adds_per_pixel(merged) / widest


def plan_table(model: CostModel, members: Sequence[Member], plan: Iterable[Any]) -> str:
    """A plan as text, one line per population: parameters and the fraction of them that is trained,
    the fraction of the arithmetic that is not padding, members that a device computes at once with
    their memory, estimated minutes on two cores or on one chip of a TPU, and backbones.
    """
    from tinyjax.population.devices import device_layout
    from tinyjax.run.text import text_table, value_range

    by_id = {member.id: member for member in members}
    rows, total = [], 0.0
    for number, population in enumerate(plan):
        group = [by_id[id] for id in population.members]
        keys = [model.size_key(member) for member in group]
        sizes = tuple(sorted(set(keys)))
        parameters = [model.parameters(key) for key in sizes]
        used_fraction = sum(key.size for key in keys) / (model.padded_size(sizes) * len(keys))
        layout = device_layout(len(keys), keys[0].batch)
        concurrent = layout.concurrent_members(population.member_batching, population.chunk_size)
        minutes = model.cost(sizes, len(keys)) / 60
        total += minutes
        rows.append(
            {
                "population": number,
                "members": len(keys),
                "at once": concurrent,
                "parameters": value_range(parameters, ","),
                "trained": value_range([model.trained_share(m) for m in group], ".0%"),
                "in use": f"{used_fraction:.0%}",
                "GiB": f"{model.memory(max(sizes)) * concurrent / 2**30:.1f}",
                "min": f"{minutes:.0f}",
                "backbones": shorten([*dict.fromkeys(key.backbone for key in keys)]),
            }
        )
    summary = f"members: {len(members)}, programs: {len(rows)}, minutes: about {total:,.0f}"
    return f"{text_table(rows)}\n{summary}"
