"""Gradient reversal for adversarial training (Ganin et al., "Domain-Adversarial Training of Neural
Networks", arXiv 1505.07818).
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


@jax.custom_vjp
def gradient_reversal(x: Array, strength: ArrayLike) -> Array:
    """Return `x`; its gradient is multiplied by -`strength`, a scalar."""
    return x


def _forward(x, strength):
    return x, strength


def _backward(strength, gradient):
    return (-strength * gradient).astype(gradient.dtype), jnp.zeros_like(strength)


gradient_reversal.defvjp(_forward, _backward)


def reversal_strength(step: ArrayLike, steps: ArrayLike) -> Array:
    """The strength in step `step`: 2 / (1 + exp(-10 p)) - 1, where p = step / steps, at most 1.

    It rises from 0 to almost 1, as in section 5.2.2 of the paper.
    """
    return jnp.tanh(5 * jnp.clip(jnp.asarray(step) / steps, 0, 1))
