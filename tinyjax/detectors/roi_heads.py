"""Box heads of two-stage detectors: features of RoIs -> class logits and box deltas.

They have no BatchNorm: most RoIs of a batch are background, and those of a test image are not those
sampled in training.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from tinyjax.models.initializers import (
    Initializer,
    he_group_fan_out,
    small_normal,
    xavier_fan_in,
)
from tinyjax.models.layers import Dense, spatial_mean
from tinyjax.ops.conv import conv2d


class BoxHead(nn.Module):
    """RoI features [B, T, P, P, D] -> logits f32[B, T, classes + 1], deltas f32[B, T, K, 4].

    Logit 0 is the background; class k has logit k + 1. K is 1 if boxes are class-agnostic, else
    `classes`: the background has no box, unlike in torchvision.
    """

    preserves_zeros = True

    classes: int
    width: int  # units of each fully connected layer
    fc_layers: int = 1
    convs: int = 0  # 3 x 3 convolutions before them, with D channels
    separable: bool = False  # depthwise separable convolutions, and a mean instead of flattening
    class_agnostic: bool = False
    class_bias: float = 0.0  # initial bias of the logits

    @nn.compact
    def __call__(self, x: Array, train: bool) -> tuple[Array, Array]:
        lead, channels = x.shape[:2], x.shape[-1]
        x = x.reshape(-1, *x.shape[2:])  # b t p q d -> (b t) p q d
        for i in range(1, self.convs + 1):
            if self.separable:
                x = RoiConv(channels, groups=channels, name=f"depthwise{i}")(x)
                x = nn.relu(RoiConv(channels, 1, name=f"pointwise{i}")(x))
            else:
                x = nn.relu(RoiConv(channels, name=f"conv{i}")(x))
        if self.separable:
            x = nn.relu(Dense(self.width, xavier_fan_in, name="fc1")(spatial_mean(x)))
        else:
            x = nn.relu(FlattenedDense(self.width, name="fc1")(x))
        for i in range(2, self.fc_layers + 1):
            x = nn.relu(Dense(self.width, xavier_fan_in, name=f"fc{i}")(x))
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        bias_init = nn.initializers.constant(self.class_bias)
        logits = Dense(self.classes + 1, small_normal, bias_init=bias_init, name="class_out")(x)
        boxes = 1 if self.class_agnostic else self.classes
        deltas = Dense(4 * boxes, _delta_normal, name="box_out")(x)
        return logits.reshape(*lead, -1), deltas.reshape(*lead, boxes, 4)


# name -> convolutions of the head: the fully connected head of Faster R-CNN (arXiv 1612.03144), the
# one with four convolutions before it (GroupNorm, arXiv 1803.08494, here without a norm), and a
# small one; on 7 x 7 x 48 features, this has 5 % of the parameters of "fc" with one layer of 128
HEADS: Mapping[str, Mapping[str, Any]] = {
    "fc": {},
    "conv": {"convs": 4},
    "separable": {"convs": 2, "separable": True},
}


class FlattenedDense(nn.Module):
    """A linear layer of whole feature maps: [N, P, P, C] -> [N, features].

    The kernel [P, P, C, features] keeps the channels on an axis of their own: in a flattened
    kernel, zero padding would not be at the end of an axis.
    """

    preserves_zeros = True

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", xavier_fan_in, (*x.shape[1:], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        y = x.reshape(x.shape[0], -1) @ kernel.reshape(-1, self.features).astype(x.dtype)
        return y + bias.astype(x.dtype)


class RoiConv(nn.Module):
    """Convolution with bias and without norm: [N, P, P, C] -> [N, P, P, width]."""

    preserves_zeros = True

    width: int
    size: int = 3
    groups: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.size, self.size, x.shape[-1] // self.groups, self.width)
        kernel = self.param("kernel", he_group_fan_out, shape, self.groups)
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        return conv2d(x, kernel.astype(x.dtype), 1, self.groups) + bias.astype(x.dtype)


def _delta_normal(key: Array, shape: tuple[int, ...]) -> Any:
    """Normal with standard deviation 0.001, as in Fast R-CNN (arXiv 1504.08083, section 2.3)."""
    return Initializer(jnp.zeros(shape), 0.001)
