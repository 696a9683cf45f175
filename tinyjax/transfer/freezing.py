"""Rules over parameter paths: which parameters train, and at which multiple of the learning rate.

A rule is (pattern, multiplier). A path takes the multiplier of the first pattern that matches the
whole path, and every path must be matched. Multiplier 0 freezes: the parameter stays bit-identical,
with or without weight decay. A BatchNorm whose running statistics (paths ".../mean", ".../var") are
frozen normalizes with them and keeps them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from ml_collections import ConfigDict

from tinyjax.errors import UserError, suggest
from tinyjax.models.scaling import Architecture

Rule = tuple[str, float]

TRAIN_REST: Rule = (".*", 1.0)
_NOT_EXTRA = r"(?!block\d+/adapter/|excite/).*"  # all but `layers.ExtraLayers`
_BACKBONE = r"backbone/(?:infrared/)?"  # both paths of a network with two
PRESETS = {
    "backbone": rf"{_BACKBONE}(stem|stage\d+)/{_NOT_EXTRA}",
    "stem": rf"{_BACKBONE}stem/.*",
    "batchnorm": r".*bn\d*/(scale|bias|mean|var)",
    "all but head": r"(?!head/|rpn/|box_head\d+/|neck_bn/|(backbone/)?classifier/).*",
    "all but last layer": r"(?!(head|box_head\d+)/class_out/|(backbone/)?classifier/).*",
}
_STAGE_PRESET = re.compile(r"stage<=([1-9])")
PRESET_NAMES = (*PRESETS, "stage<=1", "stage<=2")  # and so on


def parse_rules(freeze: Sequence[str | Rule]) -> list[Rule]:
    """Expand `config.freeze`, a sequence of preset names and rules, into rules.

    A preset freezes. It is one of `PRESETS`, or "stage<=k": the stem and stages 1 to k. If there
    are presets only, all other parameters train; if there are rules, they must cover every path.

    Raises UserError for an unknown preset or an invalid rule.
    """
    rules: list[Rule] = []
    for item in freeze:
        if isinstance(item, str):
            rules.append((_preset_pattern(item), 0.0))
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
    return rules if any(not isinstance(item, str) for item in freeze) else [*rules, TRAIN_REST]


def freeze_multipliers(paths: Iterable[str], freeze: Sequence[str | Rule]) -> dict[str, float]:
    """Return path -> learning rate multiplier, for parameters and running statistics alike.

    Raises UserError as `parse_rules` does; for a preset of a stage that does not exist, a rule that
    matches no path or never applies, a path that no rule matches, and a BatchNorm with only one of
    its two running statistics frozen.
    """
    paths = list(paths)
    multipliers: dict[str, float] = {}
    for pattern, multiplier in parse_rules(freeze):
        matches = [path for path in paths if re.fullmatch(pattern, path)]
        if not matches and pattern == PRESETS["batchnorm"]:
            raise UserError("freeze: 'batchnorm': this network has no BatchNorm")
        if not matches:
            closest = get_close_matches(pattern, paths, n=1, cutoff=0)
            raise UserError(
                f"freeze: {pattern!r} matches no path of this network; a pattern must match a "
                f"whole path, such as {closest[0]}"
            )
        unmatched = [path for path in matches if path not in multipliers]
        # ".*" only covers the remaining paths, of which there may be none.
        if (
            not unmatched
            and pattern != TRAIN_REST[0]
            and any(multipliers[path] != multiplier for path in matches)
        ):
            raise UserError(
                f"freeze: {pattern!r} never applies: the rules before it match all its paths; put "
                "it before them"
            )
        multipliers |= dict.fromkeys(unmatched, multiplier)
    for path in paths:
        if path not in multipliers:
            raise UserError(f"freeze: no rule matches {path}; end with ('.*', 1) to train the rest")
    _check_stages(paths, freeze)
    _check_batchnorm_pairs(multipliers)
    return multipliers


def lr_multipliers(paths: Iterable[str], config: ConfigDict) -> dict[str, float]:
    """Return `freeze_multipliers` of `config.freeze`, times the optimizer's backbone and layer
    scales.

    Raises UserError as `freeze_multipliers` does, and if nothing trains.
    """
    optimizer = config.optimizer
    multipliers = freeze_multipliers(paths, config.freeze)
    decay = layer_decay_multipliers(multipliers, optimizer.layer_decay)
    backbone = re.compile(PRESETS["backbone"])
    scale = {
        path: optimizer.backbone_lr_scale if backbone.fullmatch(path) else 1.0
        for path in multipliers
    }
    multipliers = {path: m * decay[path] * scale[path] for path, m in multipliers.items()}
    if not any(m and not path.endswith(("/mean", "/var")) for path, m in multipliers.items()):
        raise UserError(
            f"freeze = {tuple(config.freeze)!r}, "
            f"optimizer.backbone_lr_scale = {optimizer.backbone_lr_scale}, "
            f"optimizer.layer_decay = {optimizer.layer_decay}: nothing is left to train"
        )
    return multipliers


def layer_decay_multipliers(paths: Iterable[str], decay: float) -> dict[str, float]:
    """Return path -> decay^(blocks + 1 - layer), as detectron2's `get_vit_lr_decay_rate` does.

    The stem is layer 0, the backbone's blocks are numbered from 1; all other paths have 1.
    """
    paths = list(paths)
    blocks = sorted({block for path in paths if (block := _block_of(path))})
    layer = {block: number for number, block in enumerate(blocks, start=1)}

    def multiplier(path: str) -> float:
        if re.match(PRESETS["stem"], path):
            return decay ** (len(blocks) + 1)
        block = _block_of(path)
        return 1.0 if block is None else decay ** (len(blocks) + 1 - layer[block])

    return {path: multiplier(path) for path in paths}


def preset_for(library: str, number: int, arch: Architecture) -> tuple[str, ...]:
    """Return the value of `freeze` that corresponds to another library's number of frozen stages.

    "detectron2": MODEL.BACKBONE.FREEZE_AT, 0 to 5; "mmdetection": frozen_stages, -1 to 4;
    "torchvision": trainable_backbone_layers, 5 to 0. They count a ResNet's stem and its stages at
    strides 4, 8, 16, 32; we freeze our stages up to the same stride. All three also fix the running
    statistics of frozen BatchNorm layers, as we do.

    Raises UserError for an unknown library or an invalid number.
    """
    # converted to detectron2's numbering
    numbers = {"detectron2": number, "mmdetection": number + 1, "torchvision": 5 - number}
    if library not in numbers:
        raise UserError(f"library {library!r}: {suggest(library, numbers)}")
    if (num_frozen := numbers[library]) not in range(6):
        raise UserError(f"{library}: {number} is not a valid number of frozen stages")
    if num_frozen < 2:
        return ("stem",)[:num_frozen]
    last = sum(stride <= 2**num_frozen for stride in arch.strides)
    return (f"stage<={last}",) if last else ("stem",)


def describe(multipliers: Mapping[str, float], sizes: Mapping[str, int]) -> str:
    """Return what trains and what is frozen, as one line per module of the network.

    sizes: number of entries of each parameter; running statistics are not included.
    """
    modules: dict[str, dict[float, int]] = {}  # module -> multiplier -> entries
    for path, size in sizes.items():
        names = path.split("/")
        module = "/".join(names[: 2 if names[0] == "backbone" else 1])
        counts = modules.setdefault(module, {})
        counts[multipliers[path]] = counts.get(multipliers[path], 0) + size
    lines = []
    for module, counts in modules.items():
        texts = (
            f"{size:,} {_describe_multiplier(multiplier)}"
            for multiplier, size in sorted(counts.items(), reverse=True)
        )
        lines.append(f"  {module:<22}{', '.join(texts)}")
    return "\n".join(lines)


def _describe_multiplier(multiplier: float) -> str:
    if multiplier == 0:
        return "frozen"
    return "train" if multiplier == 1 else f"train at {multiplier:.3g} of the learning rate"


def _preset_pattern(name: str) -> str:
    if name in PRESETS:
        return PRESETS[name]
    if not (match := _STAGE_PRESET.fullmatch(name)):
        raise UserError(f"freeze: {name!r}: {suggest(name, PRESET_NAMES)}")
    return rf"{_BACKBONE}(stem|stage[1-{match[1]}])/{_NOT_EXTRA}"


def _check_stages(paths: Iterable[str], freeze: Sequence[str | Rule]) -> None:
    """Raise UserError for a preset "stage<=k" beyond the last stage."""
    stages = {path.split("/")[1] for path in paths if path.startswith("backbone/stage")}
    for item in freeze:
        match = _STAGE_PRESET.fullmatch(item) if isinstance(item, str) else None
        if match and int(match[1]) > len(stages):
            raise UserError(f"freeze: {item!r}: this backbone has {len(stages)} stages")


def _check_batchnorm_pairs(multipliers: Mapping[str, float]) -> None:
    """Raise UserError if only one of a layer's two running statistics is frozen."""
    for path in multipliers:
        layer = path.removesuffix("/mean")
        if path != layer and (multipliers[path] == 0) != (multipliers[f"{layer}/var"] == 0):
            raise UserError(
                f"freeze: {layer}: only one of mean and var is frozen; freeze both or neither"
            )


def _block_of(path: str) -> tuple[int, int] | None:
    """Return (stage, block) of a path inside a block of the backbone."""
    match = re.match(rf"{_BACKBONE}stage(\d+)/block(\d+)/", path)
    return (int(match[1]), int(match[2])) if match else None
