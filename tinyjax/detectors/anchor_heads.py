"""Layers of the heads that predict per anchor, and that all levels share."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from tinyjax.models.initializers import small_normal
from tinyjax.ops.conv import conv2d


class SharedDenseConv(nn.Module):
    """3 x 3 convolution with bias, ReLU: the same for all levels, initialized as in the paper."""

    preserves_zeros = True

    width: int

    @nn.compact
    def __call__(self, x: Array, stride: int, train: bool) -> Array:
        kernel = self.param("kernel", small_normal, (3, 3, x.shape[-1], self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        return nn.relu(conv2d(x, kernel.astype(x.dtype)) + bias.astype(x.dtype))


class AnchorOutputs(nn.Module):
    """Last layers: [B, h, w, D] and A anchors per cell -> [B, h w A, features].

    Levels with the same number of anchors per cell share a layer.
    """

    preserves_zeros = True

    features: int
    size: int
    bias_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: Array, anchors: int) -> Array:
        name = f"anchors{anchors}"
        y = OutputConv(anchors * self.features, self.size, self.bias_init, name=name)(x)
        return y.reshape(x.shape[0], -1, self.features)  # b h w (a f) -> b (h w a) f


class OutputConv(nn.Module):
    """Convolution with bias, in at least float32: [B, h, w, D] -> [B, h, w, features]."""

    preserves_zeros = True

    features: int
    size: int
    bias_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", small_normal, shape)
        bias = self.param("bias", self.bias_init, (self.features,))
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return conv2d(x, kernel.astype(x.dtype)) + bias
