"""The classifier: a backbone with its own 1x1 convolution, pooling and linear layers."""

import flax.linen as nn
from jax import Array


class Classifier(nn.Module):
    """Images [B, H, W, 1 or 3] -> logits f32[B, classes].

    A module around the backbone, so that its paths begin with "backbone/", as a detector's do:
    weights go from one to the other by name.
    """

    backbone: nn.Module

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        logits, _ = self.backbone(x, train)
        return logits
