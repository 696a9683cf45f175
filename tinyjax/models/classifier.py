"""A classifier: a backbone built with its own 1x1 convolution, pooling and linear layers."""

import flax.linen as nn
from jax import Array


class Classifier(nn.Module):
    """Images [B, H, W, 1 or 3] -> logits f32[B, classes].

    As in a detector, the backbone's paths begin with "backbone/", so weights transfer between the
    two by path.
    """

    preserves_zeros = True

    backbone: nn.Module

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        logits, _ = self.backbone(x, train)
        return logits
