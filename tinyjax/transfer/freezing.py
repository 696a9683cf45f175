"""What trains, and at which part of the learning rate: rules over the paths of a network.

A rule is (pattern, multiplier); a path takes the multiplier of the first pattern that matches the
whole of it, and every path must be matched. 0 freezes: a weight stays bit for bit what it is, decay
or not; a BatchNorm whose moments (paths ".../mean", ".../var") are frozen uses and keeps them.
"""

import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import accumulate

from ml_collections import ConfigDict

from tinyjax.errors import UserError, suggest
from tinyjax.models.scaling import Architecture

Rule = tuple[str, float]

TRAIN_THE_REST: Rule = (".*", 1.0)
_OWN = (
    r"(?!block\d+/adapter/|excite/).*"  # not what was added to a stage that has its weights already
)
PRESETS = {
    "backbone": rf"backbone/(stem|stage\d+)/{_OWN}",
    "stem": r"backbone/stem/.*",
    "batchnorm": r".*bn\d*/(scale|bias|mean|var)",
    "all but head": r"(?!head/|backbone/classifier/).*",
}
_UNTIL = re.compile(r"stage<=([1-9])")
PRESET_NAMES = (*PRESETS, "stage<=1", "stage<=2")  # and so on


def parse_rules(freeze: Sequence[str | Rule]) -> list[Rule]:
    """The rules that `freeze` stands for: names of presets, which freeze, and rules of one's own.

    Presets are those of `PRESETS`, and "stage<=k": the stem and stages 1 to k. What presets alone
    leave over trains; where there are rules of one's own they must cover everything.

    Raises UserError for an unknown preset, and a rule that is none.
    """
    rules: list[Rule] = []
    for item in freeze:
        if isinstance(item, str):
            rules.append((_preset(item), 0.0))
            continue
        try:
            pattern, multiplier = item
            re.compile(pattern)
            rules.append((pattern, float(multiplier)))
        except (TypeError, ValueError, re.error) as error:
            raise UserError(
                f"freeze: {item!r}: give a preset, or (regular expression, multiplier) ({error})"
            ) from error
        if not 0 <= rules[-1][1] < float("inf"):
            raise UserError(f"freeze: {item!r}: give a multiplier of 0 or more")
    return rules if any(not isinstance(item, str) for item in freeze) else [*rules, TRAIN_THE_REST]


def multipliers(paths: Iterable[str], freeze: Sequence[str | Rule]) -> dict[str, float]:
    """path -> multiplier of the learning rate, for parameters and BatchNorm's moments alike.

    Raises UserError as `rules_of`; for stages that are not there, a rule that no path matches or
    that never counts, a path that no rule matches, and one of a BatchNorm's two moments frozen.
    """
    paths = list(paths)
    found: dict[str, float] = {}
    for pattern, multiplier in parse_rules(freeze):
        own = [path for path in paths if re.fullmatch(pattern, path)]
        if not own:
            near = get_close_matches(pattern, paths, n=1, cutoff=0)
            raise UserError(
                f"freeze: {pattern!r} matches no path of this network; a path is matched "
                f"as a whole, such as {near[0]}"
            )
        first = [path for path in own if path not in found]
        # Of what is only there for the rest, ".*", none need be left.
        if (
            not first
            and pattern != TRAIN_THE_REST[0]
            and any(found[path] != multiplier for path in own)
        ):
            raise UserError(
                f"freeze: {pattern!r}: the rules before it match all its paths, and the first that "
                "matches counts; put it before them"
            )
        found |= dict.fromkeys(first, multiplier)
    for path in paths:
        if path not in found:
            raise UserError(f"freeze: no rule for {path}; end with ('.*', 1) for all the rest")
    _refuse_stages(paths, freeze)
    _refuse_half_of_batchnorm(found)
    return found


def lr_multipliers(paths: Iterable[str], config: ConfigDict) -> dict[str, float]:
    """`multipliers` by `config.freeze`, times what `config.optimizer` says of backbone and layers.

    Raises UserError as `multipliers`, and if nothing at all trains.
    """
    optimizer = config.optimizer
    found = multipliers(paths, config.freeze)
    depth = layer_decay(found, optimizer.layer_decay)
    trunk = re.compile(PRESETS["backbone"])
    part = {path: optimizer.backbone_lr_scale if trunk.fullmatch(path) else 1.0 for path in found}
    found = {path: rate * depth[path] * part[path] for path, rate in found.items()}
    if not any(rate and not path.endswith(("/mean", "/var")) for path, rate in found.items()):
        raise UserError(
            f"freeze = {tuple(config.freeze)!r}, "
            f"optimizer.backbone_lr_scale = {optimizer.backbone_lr_scale}, "
            f"optimizer.layer_decay = {optimizer.layer_decay}: nothing is left to train"
        )
    return found


def layer_decay(paths: Iterable[str], decay: float) -> dict[str, float]:
    """path -> decay^(blocks + 1 - layer): the stem is layer 0, the backbone's blocks are counted
    from 1, all behind them has 1 (detectron2's `get_vit_lr_decay_rate`, in terms of blocks).
    """
    paths = list(paths)
    blocks = sorted({block for path in paths if (block := _block(path))})  # by stage, by number
    layer = {block: number for number, block in enumerate(blocks, start=1)}

    def of(path: str) -> float:
        if path.startswith("backbone/stem/"):
            return decay ** (len(blocks) + 1)
        block = _block(path)
        return 1.0 if block is None else decay ** (len(blocks) + 1 - layer[block])

    return {path: of(path) for path in paths}


def preset_for(library: str, number: int, arch: Architecture) -> tuple[str, ...]:
    """`freeze` for another library's number of frozen stages.

    "detectron2": MODEL.BACKBONE.FREEZE_AT, 0 to 5; "mmdetection": frozen_stages, -1 to 4;
    "torchvision": trainable_backbone_layers, 5 to 0. They count a ResNet's stem and its stages at
    strides 4, 8, 16, 32; ours are those up to the same stride. All three also fix BatchNorm's
    moments in what they freeze, as we do.

    Raises UserError for another library or number.
    """
    parts = {"detectron2": number, "mmdetection": number + 1, "torchvision": 5 - number}
    if library not in parts:
        raise UserError(f"library {library!r}: {suggest(library, parts)}")
    if (frozen := parts[library]) not in range(6):
        raise UserError(f"{library}: {number} is none of its numbers of frozen stages")
    if frozen < 2:
        return ("stem",)[:frozen]
    steps = (math.prod(block.stride for block in stage) for stage in arch.stages)
    strides = accumulate(steps, operator.mul, initial=2)
    last = max(k for k, stride in enumerate(strides) if stride <= 2**frozen)
    return (f"stage<={last}",) if last else ("stem",)


def describe(multiplier: Mapping[str, float], sizes: Mapping[str, int]) -> str:
    """What trains and what is frozen, a line for each part of the network.

    sizes: parameters of each path; moments have none.
    """
    parts: dict[str, dict[float, int]] = {}
    for path, size in sizes.items():
        names = path.split("/")
        part = "/".join(names[: 2 if names[0] == "backbone" else 1])
        of_part = parts.setdefault(part, {})
        of_part[multiplier[path]] = of_part.get(multiplier[path], 0) + size
    lines = []
    for part, rates in parts.items():
        said = (
            f"{size:,} {'frozen' if rate == 0 else 'train' + _at(rate)}"
            for rate, size in sorted(rates.items(), reverse=True)
        )
        lines.append(f"  {part:<22}{', '.join(said)}")
    return "\n".join(lines)


def _at(rate: float) -> str:
    return "" if rate == 1 else f" at {rate:.3g} of the rate"


def _preset(name: str) -> str:
    if name in PRESETS:
        return PRESETS[name]
    if not (until := _UNTIL.fullmatch(name)):
        raise UserError(f"freeze: {name!r}: {suggest(name, PRESET_NAMES)}")
    return rf"backbone/(stem|stage[1-{until[1]}])/{_OWN}"


def _refuse_stages(paths: Iterable[str], freeze: Sequence[str | Rule]) -> None:
    """Raise UserError for a preset "stage<=k" beyond the last stage."""
    stages = {path.split("/")[1] for path in paths if path.startswith("backbone/stage")}
    for item in freeze:
        until = _UNTIL.fullmatch(item) if isinstance(item, str) else None
        if until and int(until[1]) > len(stages):
            raise UserError(f"freeze: {item!r}: this backbone has {len(stages)} stages")


def _refuse_half_of_batchnorm(multiplier: Mapping[str, float]) -> None:
    """Raise UserError where one running moment of a layer is frozen: it uses both, or neither."""
    for path in multiplier:
        layer = path.removesuffix("/mean")
        if path != layer and (multiplier[path] == 0) != (multiplier[f"{layer}/var"] == 0):
            raise UserError(
                f"freeze: {layer}: of mean and var one is frozen; freeze both or neither"
            )


def _block(path: str) -> tuple[int, int] | None:
    found = re.match(r"backbone/stage(\d+)/block(\d+)/", path)
    return (int(found[1]), int(found[2])) if found else None
