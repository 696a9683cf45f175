"""Elementwise losses of detectors with anchors."""

import jax
import jax.numpy as jnp
from jax import Array

from tinyjax.detectors.boxes import EPS


def sigmoid_focal_loss(logits: Array, is_positive: Array, alpha, gamma) -> Array:
    """Return the focal loss of binary targets, elementwise (arXiv 1708.02002, eq. 5).

    With p_t the probability of the target, it is -alpha_t (1 - p_t)^gamma log(p_t).

    Args:
        logits: any shape.
        is_positive: bool, the shape of `logits`.
        alpha: weight of positives; negatives have the weight 1 - alpha.
        gamma: exponent, at least 0.
    """
    z = jnp.where(is_positive, logits, -logits)  # p_t = sigmoid(z)
    weight = jnp.where(is_positive, alpha, 1 - alpha)
    # Powers of 1 - p_t as exponentials: a power would have an infinite gradient at 0 if gamma < 1.
    return weight * jnp.exp(-gamma * jax.nn.softplus(z)) * jax.nn.softplus(-z)


def smooth_l1_loss(difference: Array, beta: float) -> Array:
    """Return the smooth L1 loss, elementwise (arXiv 1504.08083, eq. 3, with beta as in torch).

    It is x^2 / (2 beta) for |x| < beta, else |x| - beta / 2. beta: static; 0: L1.
    """
    x = jnp.abs(difference)
    return jnp.where(x < beta, x**2 / (2 * max(beta, EPS)), x - beta / 2)
