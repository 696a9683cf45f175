"""Losses of identity logits, and those of task-oriented pretraining. Triplet losses are in
`triplets`.

In a batch of B rows, the first half has taken path 1 (visible), the second half path 2 (infrared).
In pretraining, rows i and i + B / 2 are views of the same image. axes: mesh axes that the batch is
sharded over, each shard with rows of both halves; a result is then the shard's term of the mean,
and terms add up to it over shards.

The TOPLight poster states the fake-domain loss. It does not state the form of the
identity-consistency loss, nor weights: `consistency_loss`, `feature_consistency_loss` and the
recommended weights are our own choice.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike


@jax.named_scope("loss")
def identity_loss(
    logits: Array, labels: Array, label_smoothing: ArrayLike = 0.0, axes: Sequence[str] = ()
) -> Array:
    """Mean cross-entropy, in nats, of logits float [B, identities] with labels int [B].

    The fraction `label_smoothing` of a target is spread evenly over all identities.
    """
    log_probability = jax.nn.log_softmax(logits)
    true = jnp.take_along_axis(log_probability, labels[:, None], 1)[:, 0]
    uniform = log_probability.mean(1)
    return -_mean((1 - label_smoothing) * true + label_smoothing * uniform, axes)


@jax.named_scope("loss")
def consistency_loss(logits: Array, axes: Sequence[str] = ()) -> Array:
    """The mean over pairs of [KL(p1 || sg p2) + KL(p2 || sg p1)] / 2, where p1 and p2 are the
    probabilities of rows i and i + B / 2, and sg stops the gradient. logits: float [B, identities].
    """
    first, second = jnp.split(jax.nn.log_softmax(logits), 2)

    def divergence(log_p, log_q):
        return (jnp.exp(log_p) * (log_p - lax.stop_gradient(log_q))).sum(1)

    return _mean(divergence(first, second) + divergence(second, first), axes) / 2


@jax.named_scope("loss")
def feature_consistency_loss(features: Array, axes: Sequence[str] = ()) -> Array:
    """The mean over pairs of the squared Euclidean distance of rows i and i + B / 2.

    features: float [B, D]. A sum over D, not a mean, does not depend on padding with zeros.
    """
    first, second = jnp.split(features, 2)
    return _mean(((first - second) ** 2).sum(1), axes)


@jax.named_scope("loss")
def domain_loss(
    shallow_logits: Array, final_logits: Array, axes: Sequence[str] = ()
) -> tuple[Array, Array]:
    """The two terms of the fake-domain loss L_fd, each the sum over paths of the mean cross-entropy
    of domain logits [B, 2] with the path's number: that of the shallow features, and that of the
    final features, whose gradient `domain_heads.DomainHeads` has reversed.
    """
    path = (jnp.arange(len(shallow_logits)) >= len(shallow_logits) // 2).astype(jnp.int32)
    shallow, final = (2 * identity_loss(x, path, 0.0, axes) for x in (shallow_logits, final_logits))
    return shallow, final


def pretraining_loss(
    outputs: Mapping[str, Array],
    labels: Array,
    weights: Mapping[str, ArrayLike],
    label_smoothing: ArrayLike = 0.0,
    axes: Sequence[str] = (),
) -> tuple[Array, dict[str, Array]]:
    """The loss of task-oriented pretraining, L_idc + w (L_fd of path 1 + L_fd of path 2).

    L_idc = CE(path 1) + CE(path 2) + consistency. A term without a weight is not computed.

    Args:
        outputs: "logits" [B, identities]; "features" [B, D] for feature_consistency;
            "shallow_domain" and "final_domain" [B, 2], see `domain_loss`, for domain.
        labels: int [B], the identity of each row.
        weights: scalars `identity`, `consistency`, `feature_consistency` and `domain`. Recommended:
            identity 1, consistency 1, domain 0.1.

    Returns:
        The loss, and its terms without their weights: identity_loss, consistency_loss,
        feature_consistency_loss, shallow_domain_loss and final_domain_loss.
    """
    loss, terms = jnp.zeros((), outputs["logits"].dtype), {}
    if "identity" in weights:
        # The sum over the two paths.
        terms["identity_loss"] = 2 * identity_loss(outputs["logits"], labels, label_smoothing, axes)
        loss += weights["identity"] * terms["identity_loss"]
    if "consistency" in weights:
        terms["consistency_loss"] = consistency_loss(outputs["logits"], axes)
        loss += weights["consistency"] * terms["consistency_loss"]
    if "feature_consistency" in weights:
        terms["feature_consistency_loss"] = feature_consistency_loss(outputs["features"], axes)
        loss += weights["feature_consistency"] * terms["feature_consistency_loss"]
    if "domain" in weights:
        shallow, final = domain_loss(outputs["shallow_domain"], outputs["final_domain"], axes)
        terms |= {"shallow_domain_loss": shallow, "final_domain_loss": final}
        loss += weights["domain"] * (shallow + final)
    return loss, terms


def _mean(values, axes):
    """This shard's term of the mean of `values` over the rows of all shards."""
    return values.sum() / (len(values) * lax.axis_size(axes))
