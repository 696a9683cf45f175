"""What trains, and at which part of the learning rate: rules over the paths of a network.

A rule is (pattern, multiplier); a path takes the multiplier of the first pattern that matches the
whole of it, and every path must be matched. 0 freezes: a weight stays bit for bit what it is, decay
or not; a BatchNorm whose moments (paths ".../mean", ".../var") are frozen uses and keeps them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import accumulate

from ml_collections import ConfigDict

from tinyjax.errors import UserError, suggest
from tinyjax.models.scaling import Architecture

Rule = tuple[str, float]

REST: Rule = (".*", 1.0)
PRESETS = {
    "backbone": r"backbone/(stem|stage\d+)/.*",
    "stem": r"backbone/stem/.*",
    "batchnorm": r".*bn\d*/(scale|bias|mean|var)",
    "all but head": r"(?!head/|backbone/classifier/).*",
}
_UNTIL = re.compile(r"stage<=([1-9])")
KNOWN = (*PRESETS, "stage<=1", "stage<=2")  # and so on


def rules_of(freeze: Sequence[str | Rule]) -> list[Rule]:
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
    return rules if any(not isinstance(item, str) for item in freeze) else [*rules, REST]


def multipliers(paths: Iterable[str], freeze: Sequence[str | Rule]) -> dict[str, float]:
    """path -> multiplier of the learning rate, for parameters and BatchNorm's moments alike.

    Raises UserError as `rules_of`, for a rule that no path matches, and for a path that no rule
    does.
    """
    paths, rules = list(paths), rules_of(freeze)
    patterns = [re.compile(pattern) for pattern, _ in rules]
    for pattern in patterns:
        if not any(map(pattern.fullmatch, paths)):
            near = get_close_matches(pattern.pattern, paths, n=1, cutoff=0)
            raise UserError(
                f"freeze: {pattern.pattern!r} matches no path of this network; a path is matched "
                f"as a whole, such as {near[0]}"
            )
    found = {}
    for path in paths:
        first = next((i for i, one in enumerate(patterns) if one.fullmatch(path)), None)
        if first is None:
            raise UserError(f"freeze: no rule for {path}; end with ('.*', 1) for all the rest")
        found[path] = rules[first][1]
    return found


def rates(paths: Iterable[str], config: ConfigDict) -> dict[str, float]:
    """`multipliers` by `config.freeze`, times what `config.optimiser` says of backbone and layers.

    Raises UserError as `multipliers`, and if nothing at all trains.
    """
    optimiser = config.optimiser
    found = multipliers(paths, config.freeze)
    if not any(rate and not path.endswith(("/mean", "/var")) for path, rate in found.items()):
        raise UserError(f"freeze = {tuple(config.freeze)!r}: nothing is left to train")
    depth = layer_decay(found, optimiser.layer_decay)
    trunk = re.compile(PRESETS["backbone"])
    part = {path: optimiser.backbone if trunk.fullmatch(path) else 1.0 for path in found}
    return {path: rate * depth[path] * part[path] for path, rate in found.items()}


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


def preset_of(library: str, number: int, arch: Architecture) -> tuple[str, ...]:
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
    strides = accumulate(arch.stages, lambda s, stage: s * _stride(stage), initial=2)
    last = max(k for k, stride in enumerate(strides) if stride <= 2**frozen)
    return (f"stage<={last}",) if last else ("stem",)


def table(multiplier: Mapping[str, float], sizes: Mapping[str, int]) -> str:
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
        raise UserError(f"freeze: {name!r}: {suggest(name, KNOWN)}")
    return rf"backbone/(stem|stage[1-{until[1]}])/.*"


def _block(path: str) -> tuple[int, int] | None:
    found = re.match(r"backbone/stage(\d+)/block(\d+)/", path)
    return (int(found[1]), int(found[2])) if found else None


def _stride(stage: Sequence) -> int:
    stride = 1
    for block in stage:
        stride *= block.stride
    return stride
