"""Classifiers of the path that a feature comes from, for the fake-domain loss."""

import flax.linen as nn
from jax import Array
from jax.typing import ArrayLike

from tinyjax.models.initializers import uniform_fan_in
from tinyjax.models.layers import Dense, spatial_mean
from tinyjax.ops.gradient_reversal import gradient_reversal

HIDDEN = 64


class DomainHeads(nn.Module):
    """Two heads, each shared by both paths: one for the feature map of the last separate block, one
    for that of the last shared block, whose gradient is reversed.

    The TOPLight poster states the two losses and the reversal. The heads are our own choice: mean
    over the map, then a linear layer; for the last block with a hidden layer before it.
    """

    preserves_zeros = True

    @nn.compact
    def __call__(
        self, shallow: Array, final: Array, reversal_strength: ArrayLike
    ) -> tuple[Array, Array]:
        """Return the logits of both heads, each [B, 2] in at least float32.

        Args:
            shallow, final: [B, H, W, C], each with its own H, W and C.
            reversal_strength: scalar, see `ops.gradient_reversal`.
        """
        x = gradient_reversal(spatial_mean(final), reversal_strength)
        x = nn.relu(Dense(HIDDEN, uniform_fan_in, name="final_hidden")(x))
        final_logits = Dense(2, uniform_fan_in, name="final")(x)
        shallow_head = Dense(2, uniform_fan_in, name="shallow")
        return shallow_head(spatial_mean(shallow)), final_logits
