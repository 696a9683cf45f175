"""What the networks of all families share: stages of blocks, the order of their layers, two paths.

A network with `arch.path_blocks` = k > 0 has two paths: TOPLight's blocks 1 to k (table 1) exist
twice, and the rest is shared. The copies for visible images have the paths of a network with one
path, "stem/..", "stage1/..", those for infrared images "infrared/stem/..", "infrared/stage1/..".
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from tinyjax.models.layers import (
    EXCITE_SETTINGS,
    NO_EXTRA_LAYERS,
    Adapter,
    ExtraLayers,
    LayerNorm,
    SqueezeExcite,
    spatial_mean,
)
from tinyjax.models.path_blocks import stage_slices
from tinyjax.models.scaling import Architecture, make_divisible

INFRARED = 1  # the modality of infrared images; 0: visible


class Stage(nn.Module):
    """A sequence of blocks, with their extra layers.

    block: builds the module of a block, `block(spec, adapter=adapter, name=name)`.
    norm_eps: of a LayerNorm after the blocks; 0: none.

    A call applies the blocks first..last-1. Without `last` it applies all from `first`, and the
    layers after the blocks.
    """

    preserves_zeros = True

    specs: tuple[Any, ...]
    block: Callable
    extra_layers: ExtraLayers
    eps: float
    momentum: float
    norm_eps: float = 0

    @nn.compact
    def __call__(self, x: Array, train: bool, first: int = 0, last: int | None = None) -> Array:
        adapter = None
        if self.extra_layers.adapters:
            adapter = partial(Adapter, self.eps, self.momentum)
        for i, spec in [*enumerate(self.specs)][first:last]:
            x = self.block(spec, adapter=adapter, name=f"block{i}")(x, train)
        if last is not None:
            return x
        if self.norm_eps:
            x = LayerNorm(self.norm_eps, name="norm")(x)
        if self.extra_layers.excite:
            squeeze = make_divisible(x.shape[-1] / 4)
            settings = EXCITE_SETTINGS[self.extra_layers.excite]
            x = SqueezeExcite(squeeze, "relu", **settings, name="excite")(x)
        return x


class Layers(NamedTuple):
    """The layers of a family, as functions that create their modules in the calling module."""

    stem: Callable[..., tuple[Array, dict[int, Array]]]  # (x, train) -> x, {stride: features}
    block: Callable[..., nn.Module]  # see `Stage`
    # (output of the stages, train) -> [B, D], which the classifier reads
    head: Callable[..., Array]
    classifier: Callable[..., nn.Module]  # (features, name=name)
    norm_eps: float = 0  # see `Stage`
    # (output of a block, shape of the image) -> [B, H, W, C]
    to_map: Callable[[Array, tuple[int, ...]], Array] = lambda x, shape: x


class Outputs(NamedTuple):
    """What a backbone computes."""

    vector: Array | None  # logits, or with 0 classes the classifier's input
    features: dict[int, Array]  # stride -> the last output at this stride
    blocks: dict[int, Array]  # TOPLight's block 1 to 6 -> its output


class Backbone(nn.Module):
    """x [B, H, W, C] -> (logits f32[B, classes] or None, {stride: features}).

    Features are the last outputs at each stride, [B, H/stride, W/stride, C], in the compute dtype
    `dtype`; odd sizes are rounded up at each level. Without `classes` the network ends after its
    stages: it has no head, no hidden layer and no classifier. With 0 classes it has no classifier,
    and in the place of logits is the classifier's input, f32[B, D]. `eps` and `momentum` (torch's
    convention) are those of BatchNorm; in families without it, of adapters. `pooling` is
    [B, H, W, C] -> [B, C].

    With two paths, `modality` [B] selects the path of each image, and both paths are computed for
    all images. In training it is None: the first half of the batch is visible, the second infrared,
    and each path computes its half. BatchNorm statistics are per modality in doubled layers, joint
    in shared ones. (A batch of one image without modality takes the infrared path.)
    """

    arch: Architecture
    classes: int | None = None
    dtype: DTypeLike = jnp.float32
    eps: float = 1e-5
    momentum: float = 0.1
    extra_layers: ExtraLayers = NO_EXTRA_LAYERS
    pooling: Callable[[Array], Array] = spatial_mean

    pools: ClassVar[bool] = True  # whether the family uses `pooling`

    def layers(self) -> Layers:
        """Each family defines its layers."""
        raise NotImplementedError

    def __call__(
        self, x: Array, train: bool, modality: Array | None = None
    ) -> tuple[Array | None, dict[int, Array]]:
        return self.forward(x, train, modality)[:2]

    @nn.compact
    def forward(
        self,
        x: Array,
        train: bool,
        modality: Array | None = None,
        after: Mapping[int, Callable[[Array], Array]] = MappingProxyType({}),
    ) -> Outputs:
        """`__call__`, with the outputs of TOPLight's blocks.

        after: shared block -> function that replaces its output, [B, H, W, C] -> the same shape.
        """
        layers, image_shape = self.layers(), x.shape
        block, settings = layers.block, (self.extra_layers, self.eps, self.momentum)

        def make_stages():  # in the module that is being called
            return [
                Stage(specs, block, *settings, layers.norm_eps, name=f"stage{n}")
                for n, specs in enumerate(self.arch.stages, start=1)
            ]

        stages, paths = make_stages(), self.arch.path_blocks
        run = partial(run_blocks, self.arch, layers, train=train)
        x, blocks = x.astype(self.dtype), {}
        features: dict[int, Array] = {}
        if paths:
            visible, infrared = split_modalities(x, modality)
            doubled = range(1, paths + 1)

            def run_infrared(x):
                return run(make_stages(), x, doubled)

            join = partial(join_modalities, modality=modality)
            x, features, blocks = jax.tree.map(
                join,
                run(stages, visible, doubled),
                Infrared(run_infrared, name="infrared")(infrared),
            )
        x, shared_features, shared_blocks = run(stages, x, range(paths + 1, 7), after=after)
        features, blocks = features | shared_features, blocks | shared_blocks
        features, blocks = (
            {key: layers.to_map(y, image_shape) for key, y in outputs.items()}
            for outputs in (features, blocks)
        )
        if self.classes is None:
            return Outputs(None, features, blocks)
        y = layers.head(x, train)
        if self.classes:
            y = layers.classifier(self.classes, name="classifier")(y)
        return Outputs(y, features, blocks)


class Infrared(nn.Module):
    """The copies of stem and blocks for infrared images. run: x -> outputs, creates the modules."""

    preserves_zeros = True

    run: Callable[[Array], Any]

    @nn.compact
    def __call__(self, x: Array) -> Any:
        return self.run(x)


def run_blocks(
    arch: Architecture,
    layers: Layers,
    stages: Sequence[Stage],
    x: Array,
    blocks: Iterable[int],
    *,
    train: bool,
    after: Mapping[int, Callable[[Array], Array]] = MappingProxyType({}),
) -> tuple[Array, dict[int, Array], dict[int, Array]]:
    """Apply TOPLight's `blocks`, some of 1 to 6: return their output, features and outputs.

    after: see `Backbone.forward`.
    """
    features: dict[int, Array] = {}
    outputs: dict[int, Array] = {}
    for number in blocks:
        if number == 1:
            x, features = layers.stem(x, train)
        slices = stage_slices(number, arch)
        for n, first, last in slices:
            x = stages[n - 1](x, train, first, last)
            features[arch.strides[n - 1]] = x
        if number in after:
            x = after[number](x)
            features |= {arch.strides[n - 1]: x for n, *_ in slices[-1:]}
        outputs[number] = x
    return x, features, outputs


def split_modalities(x: Array, modality: Array | None) -> tuple[Array, Array]:
    """Return the rows of x [B, ...] that the visible and the infrared path compute."""
    if modality is not None:
        return x, x
    half = len(x) // 2
    return x[:half], x[half:]


def join_modalities(visible: Array, infrared: Array, modality: Array | None) -> Array:
    """The inverse of `split_modalities`, for outputs of the two paths."""
    if modality is None:
        return jnp.concatenate([visible, infrared])
    is_infrared = (modality == INFRARED).reshape(-1, *(1,) * (infrared.ndim - 1))
    return jnp.where(is_infrared, infrared, visible)
