"""A detector padded to a wider one trains as it does without padding: 20 steps in float64.

As tests/population/test_pad.py, for detectors whose loss and network are chosen by a config.
"""

from functools import partial
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tests.population.test_pad import ARCHITECTURES, LEARNING_RATES, SIDE, STEPS, shapes_of, train
from tinyjax import models, step
from tinyjax.core import ModelFunctions, Variables
from tinyjax.models.supernet import gate_values, merge_architectures
from tinyjax.population.pad import check_zero_padding, pad, unpad


class Subsampled(nn.Module):
    """A backbone without parameters."""

    preserves_zeros = True
    arch = SimpleNamespace(feature_strides=(4, 8))

    def __call__(self, x, train):
        return None, {stride: x[:, ::stride, ::stride] for stride in (4, 8)}


def padded_and_unpadded(detector, config, backbones):
    """Two networks, the second of which is wider, and the gates of the first one in it."""
    if not backbones:
        networks = []
        for config.model.neck_width in (4, 6):
            networks.append(detector.build(Subsampled(), config, 3))
        return *networks, {}
    config.model.neck_width = 0
    merged = merge_architectures(ARCHITECTURES[backbones])
    architecture = ARCHITECTURES[backbones][0]
    narrow, wide = (
        detector.build(models.build(backbones, None, jnp.float64, supernet=a), config, 3)
        for a in (architecture, merged)
    )
    gates = gate_values(architecture, merged)
    return narrow, wide, {f"backbone/{path}": np.float64(v) for path, v in gates.items()}


def model_functions(detector, model, config):
    def init(seed):
        trees = models.init(model, seed, (1, SIDE, SIDE, 3))
        return Variables(*jax.tree.map(lambda leaf: leaf.astype(jnp.float64), trees))

    def loss(variables, frozen_batchnorm, batch, key, hyper):
        apply = partial(models.apply, model, *variables, train=True)
        return detector.loss(apply, batch, key, config.loss.to_dict(), config)

    return ModelFunctions(init, loss, lambda *_: {})


def check_padded_training(detector, config, backbones):
    """Compare the training of a detector with and without padding.

    detector: the module. backbones: a key of ARCHITECTURES, or "" for a backbone without
    parameters, where the width of the neck differs.
    """
    with jax.enable_x64(True):
        narrow, wide, gates = padded_and_unpadded(detector, config, backbones)
        check_zero_padding(wide, (1, SIDE, SIDE, 3))
        functions, wide_functions = (model_functions(detector, m, config) for m in (narrow, wide))
        unpadded = functions.init(0)
        params, stats = map(shapes_of, jax.eval_shape(wide_functions.init, 0))
        padded = Variables(pad(unpadded.params | gates, params), pad(unpadded.stats, stats))
        assert shapes_of(padded.params) != shapes_of(unpadded.params)
        tx = step.make_optimizer("adamw", 0.9, 0.999, 1.0)
        rate = LEARNING_RATES["adamw"]
        hyper, states, losses = {"seed": 0, "weight_decay": 0.05, "ema": 0.9, "lr": rate}, [], []
        for model, variables in ((functions, unpadded), (wide_functions, padded)):
            paths = [*variables.params, *variables.stats]
            trainable = step.select_trainable({path: float(path not in gates) for path in paths})
            state, values = train(model, variables, tx, trainable, hyper)
            states.append(state.variables(state.weights))
            losses.append(values)
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-9)
        assert losses[0][-1] < losses[0][0]
        for tree, padded_tree in zip(*states, strict=True):
            unpadded_tree = unpad(padded_tree, shapes_of(tree))
            for path, leaf in tree.items():
                atol = 1e-9 * max(np.abs(leaf).max(), STEPS * rate)
                np.testing.assert_allclose(unpadded_tree[path], leaf, rtol=0, atol=atol)
            # The padding is still exactly 0: padding again gives the same arrays.
            padded_again = pad(unpadded_tree, shapes_of(padded_tree))
            for path, leaf in padded_tree.items():
                if path not in gates:
                    np.testing.assert_array_equal(leaf, padded_again[path])
