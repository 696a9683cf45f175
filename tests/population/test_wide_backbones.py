"""Classifiers of every family train side by side as by vmap, in float64."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import keystr, tree_leaves_with_path

from tests.tiny_backbones import MINIS
from tinyjax import models, step
from tinyjax.core import ModelFunctions, Variables
from tinyjax.models.classifier import Classifier
from tinyjax.population import wide, wide_rules

STEPS, MEMBERS, BATCH, SIDE, CLASSES = 3, 3, 4, 32, 3


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def train(family, **gradient):
    """Train all members with SGD and with BatchNorm in training mode.

    Returns the weights, running statistics, momentum and metrics after each step.
    """
    model = Classifier(models.build(MINIS[family], CLASSES, jnp.float64))

    def init(seed):
        variables = Variables(*models.init(model, seed, (1, SIDE, SIDE, 1)))
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)

    def loss(variables, frozen_batchnorm, batch, key, hyper):
        logits, stats = models.apply(
            model, *variables, batch["image"], train=True, frozen_batchnorm=frozen_batchnorm
        )
        targets = jax.nn.one_hot(jnp.arange(BATCH) % CLASSES, CLASSES)
        return -(targets * jax.nn.log_softmax(logits)).mean(), (stats, {"logits": logits})

    tx = step.make_optimizer("sgd", 0.9, 0.999, 0.0)
    functions = ModelFunctions(init, loss, lambda *_: {})
    train_step = jax.jit(jax.vmap(step.make_step(functions, tx, lambda _: 1.0, **gradient)))
    seeds = np.arange(MEMBERS)
    state = jax.vmap(lambda seed: step.init_state(init(seed), tx))(seeds)
    constants = {"lr": 0.01, "weight_decay": 0.0, "ema": 0.5}
    hyper = {"seed": seeds, **{name: np.full(MEMBERS, v) for name, v in constants.items()}}
    shape = (STEPS, MEMBERS, BATCH, SIDE, SIDE, 1)
    results = []
    for images in np.random.default_rng(0).normal(size=shape):
        state, metrics = train_step(state, {"image": images}, hyper)
        params, stats = state.weights
        momentum = replace(params, vector=state.opt_state[1].trace)  # a sum of gradients
        results.append((params.unpack(), stats.unpack(), momentum.unpack(), metrics))
    return results


train_by_vmap = cache(train)


@pytest.mark.slow  # compiles for minutes
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("family", MINIS)
def test_members_train_as_by_vmap(family, groups, monkeypatch):
    """groups: of the images, where they move the fewest bytes; in other layers one."""
    image_groups, chosen = wide_rules.image_groups, set()

    def record(*args):
        chosen.add(num_groups := image_groups(*args))
        return num_groups

    monkeypatch.setattr(wide_rules, "MIN_IMAGES", BATCH // groups)
    monkeypatch.setattr(wide_rules, "image_groups", record)
    expected = train_by_vmap(family)
    actual = train(family, value_and_grad=wide.value_and_grad)
    assert max(chosen, default=groups) == groups  # transformers have no such convolutions
    for (path, a), b in zip(tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        # The gradient of a bias before a BatchNorm is 0 but for rounding.
        tolerance = 1e-9 * np.abs(b).max() + 1e-13
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance, err_msg=keystr(path))
