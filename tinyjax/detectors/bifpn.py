"""BiFPN, the bidirectional feature pyramid of EfficientDet (arXiv 1911.09070)."""

from collections.abc import Sequence

import flax.linen as nn
from jax import Array

from tinyjax.detectors.necks import SeparableConvBN, fused_strides, project_features, upsample
from tinyjax.ops.pooling import max_pool

EPS = 1e-4  # added to the sum of a node's weights


class BiFPN(nn.Module):
    """Backbone features {stride: [B, h, w, c]} -> {stride: [B, h, w, width]} for `strides`.

    It fuses five levels, from the finest of `strides` on: from the coarsest to the finest, then
    back. The second path also reads the inputs of the first. Laterals are 1 x 1 convolutions with
    BatchNorm; levels are downsampled by max pooling.

    repeats: number of times that both paths are done, 3 in EfficientDet-D0. The last one goes back
        to the coarsest of `strides` only.
    """

    preserves_zeros = True

    width: int
    strides: tuple[int, ...]
    repeats: int = 1

    @nn.compact
    def __call__(self, features: dict[int, Array], train: bool) -> dict[int, Array]:
        strides = fused_strides(self.strides)
        finest, coarsest = strides[0], strides[-1]
        levels = project_features(features, strides, self.width, max_pool, train)
        for n in range(1, self.repeats + 1):
            top_down = {coarsest: levels[coarsest]}
            for s in strides[-2::-1]:
                inputs = [levels[s], upsample(top_down[2 * s], levels[s].shape[1:3])]
                top_down[s] = Fusion(self.width, name=f"repeat{n}_up{s}")(inputs, train)
            outputs = {finest: top_down[finest]}
            last = max(self.strides) if n == self.repeats else coarsest
            for s in (s for s in strides if finest < s <= last):
                inputs = [levels[s], top_down[s], max_pool(outputs[s // 2])]
                if s == coarsest:  # its input and its top-down node are the same
                    inputs = [levels[s], inputs[-1]]
                outputs[s] = Fusion(self.width, name=f"repeat{n}_down{s}")(inputs, train)
            levels = outputs
        return {s: levels[s] for s in self.strides}


class Fusion(nn.Module):
    """Weighted mean of maps, SiLU, separable 3 x 3 convolution, BatchNorm.

    The input x_i has the weight relu(w_i) / (sum of all relu(w) + 1e-4), with one learned scalar
    w_i ("fast normalized fusion", section 3.3). N maps [B, H, W, C] -> [B, H, W, width].
    """

    preserves_zeros = True

    width: int

    @nn.compact
    def __call__(self, inputs: Sequence[Array], train: bool) -> Array:
        weights = nn.relu(self.param("weights", nn.initializers.ones, (len(inputs),)))
        weights = (weights / (weights.sum() + EPS)).astype(inputs[0].dtype)
        mean = sum(weights[i] * x for i, x in enumerate(inputs))
        return SeparableConvBN(self.width, name="conv")(nn.silu(mean), train)
