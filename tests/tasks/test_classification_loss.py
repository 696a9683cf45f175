"""The classification loss: class weights, label smoothing, mixed images."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tinyjax.config import classifier
from tinyjax.data.records import ClassificationSplit
from tinyjax.population.stack import hyper_arrays
from tinyjax.tasks import classify

LABELS = np.array([0, 0, 0, 0, 0, 1, 0, 2], np.int32)  # 6, 1 and 1 images


def test_cross_entropy_by_hand():
    """Two images, the second with weight 3, and label smoothing of 0.2."""
    logits = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]]))
    targets = jnp.array([[1.0, 0, 0], [0, 3, 0]])
    smooth = 0.2 / 3
    first = -((0.8 + smooth) * np.log(0.7) + smooth * np.log(0.2) + smooth * np.log(0.1))
    second = -((0.8 + smooth) * np.log(0.25) + smooth * np.log(0.5) + smooth * np.log(0.25))
    value = classify.cross_entropy(logits, targets, jnp.float32(0.2))
    assert float(value) == pytest.approx((first + 3 * second) / 4, rel=1e-6)


def test_cross_entropy_equals_optax_for_equal_weights():
    logits = jax.random.normal(jax.random.key(0), (5, 4))
    hard = jax.nn.one_hot(jnp.array([0, 3, 1, 1, 2]), 4)
    expected = optax.softmax_cross_entropy(logits, optax.smooth_labels(hard, 0.1)).mean()
    value = classify.cross_entropy(logits, hard, jnp.float32(0.1))
    assert float(value) == pytest.approx(float(expected), rel=1e-6)


class ConstantLogits(nn.Module):
    """Three logits that do not depend on the image; initially zero."""

    @nn.compact
    def __call__(self, x, train):
        self.variable("stats", "unused", lambda: jnp.zeros(()))
        bias = self.param("bias", nn.initializers.zeros, (3,))
        return jnp.broadcast_to(bias, (len(x), 3))


@pytest.mark.parametrize("mixing", [{}, {"mixup": 0.2}, {"cutmix": 1.0}, {"mixup": 1, "cutmix": 1}])
def test_mixing_images_keeps_the_share_of_each_class(mixing, monkeypatch):
    """With zero logits the gradient of the bias is 1 / classes minus the class's share of the loss,
    which is proportional to n^(1 - balance) for a class of n images.
    """
    monkeypatch.setattr(classify, "build", lambda *_: ConstantLogits())
    config = classifier()
    config.crop_size = (32, 32)
    config.augment.update(mixing)
    config.loss.label_smoothing = 0.0
    images = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 1), np.uint8)
    names = tuple(str(i) for i in range(8))
    split = ClassificationSplit({"image": images}, LABELS, names, ("a", "b", "c"))
    model = classify.model_functions(config, split.classes, {"image": (32, 32, 1)})
    variables = model.init(0)

    @jax.jit
    @jax.grad
    def gradient(params, hyper):
        network = variables._replace(params=params)
        return model.loss(network, {}, classify.device_arrays(split), jax.random.key(1), hyper)[0]

    for balance in (0.0, 0.5, 1.0):
        config.loss.class_balance = balance
        shares = 1 / 3 - gradient(variables.params, hyper_arrays(config))["bias"]
        expected = np.array([6, 1, 1]) ** (1 - balance)
        np.testing.assert_allclose(shares, expected / expected.sum(), atol=1e-6)
