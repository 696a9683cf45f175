"""Batches, views, losses and gradients on one device, and with the batch spread over four.

Prints the maximum differences as JSON. test_sharded.py runs this script on simulated devices.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

from tests.recognition.strengths import FINE_TUNING, PRETRAINING  # noqa: E402
from tests.recognition.test_sampling import make_tables  # noqa: E402
from tinyjax.data.sampling import shard_rows  # noqa: E402
from tinyjax.population import devices  # noqa: E402
from tinyjax.recognition.augmentation import augment_pairs, augment_views  # noqa: E402
from tinyjax.recognition.losses import identity_loss, pretraining_loss  # noqa: E402
from tinyjax.recognition.sampling import sample_identities  # noqa: E402
from tinyjax.recognition.triplets import (  # noqa: E402
    batch_hard_triplet,
    four_way_triplet,
    weighted_triplet,
)

IDENTITIES, IMAGES, SIZE = 4, 4, (8, 12)
PRETRAINING_WEIGHTS = {"identity": 1, "consistency": 1, "feature_consistency": 0.5, "domain": 0.1}
LABELS, _, TABLES, _ = make_tables([(5, 4), (4, 6), (3, 3), (4, 4), (7, 2)], IDENTITIES)


def losses(params, axes):
    """This shard's terms of all losses, of linear features."""
    key = jax.random.key(0)
    index = sample_identities(jnp.uint32(0), 0, TABLES, IDENTITIES, IMAGES)
    images = np.random.default_rng(0).integers(0, 256, (len(LABELS), *SIZE, 3), np.uint8)
    images, labels = jnp.asarray(images), jnp.asarray(LABELS)

    def embed(views):
        features = views.reshape(len(views), -1).astype(jnp.float64) @ params["embed"]
        return features, jnp.tanh(features) @ params["classify"]

    rows = shard_rows(index, axes)
    features, logits = embed(augment_pairs(key, images[rows], FINE_TUNING, axes))
    batch = features, labels[rows]
    terms = {
        "identity": identity_loss(logits, labels[rows], 0.1, axes),
        "batch_hard": batch_hard_triplet(*batch, 0.3, axes),
        "four_way": four_way_triplet(*batch, 0.3, axes),
        "weighted": weighted_triplet(*batch, axes),
    }
    rows = shard_rows(index[::2], axes)
    features, logits = embed(augment_views(key, images[rows], PRETRAINING, SIZE, axes=axes))
    outputs = {"features": features, "logits": logits}
    outputs |= {"shallow_domain": features[:, :2], "final_domain": logits[:, :2]}
    terms["pretraining"], _ = pretraining_loss(
        outputs, jnp.tile(labels[rows], 2), PRETRAINING_WEIGHTS, 0.1, axes
    )
    return terms


def losses_and_gradients(num_devices):
    """Name of a loss -> its value and gradient by parameter, summed over shards."""
    mesh = jax.make_mesh((1, num_devices), ("member", "data"), devices=jax.devices()[:num_devices])
    layout = devices.DeviceLayout(mesh, 1)
    random = np.random.default_rng(1)
    params = {
        "embed": random.normal(size=(np.prod(SIZE) * 3, 6)) / 17,
        "classify": random.normal(size=(6, 5)),
    }

    def compute(params, _):
        values, pull_back = jax.vjp(lambda params: losses(params, layout.axes), params)
        one_hot = [{name: float(name == key) for name in values} for key in values]
        gradients = {key: pull_back(x)[0] for key, x in zip(values, one_hot, strict=True)}
        return jax.lax.psum({key: (values[key], gradients[key]) for key in values}, layout.axes)

    result = jax.jit(layout.shard(compute))(layout.replicate(params), ())
    return jax.device_get(result)


def main():
    expected, sharded = losses_and_gradients(1), losses_and_gradients(4)
    differences = {
        name: max(
            float(np.abs(x - y).max() / np.abs(y).max())
            for x, y in zip(*(jax.tree.leaves(r[name]) for r in (sharded, expected)), strict=True)
        )
        for name in expected
    }
    print(json.dumps(differences))


if __name__ == "__main__":
    main()
