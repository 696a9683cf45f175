"""Box heads: sizes, the layout of the flattened layer, and zero padding."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tinyjax import models
from tinyjax.detectors.roi_heads import HEADS, BoxHead, FlattenedDense
from tinyjax.models import flops
from tinyjax.population.pad import check_zero_padding, pad, unpad


def param_shapes(model, *shape):
    return jax.eval_shape(lambda: models.init(model, 0, shape))[0]


@pytest.mark.parametrize(
    ("head", "parameters", "multiply_adds"), [("fc", 303_248, 303_104), ("separable", 14_000, None)]
)
def test_sizes_of_small_heads(head, parameters, multiply_adds):
    model = BoxHead(3, 128, **HEADS[head])
    assert flops.count_parameters(param_shapes(model, 1, 1, 7, 7, 48)) == parameters
    dense = 128 * (4 + 12)
    expected = multiply_adds or 2 * 49 * 48 * (9 + 48) + 48 * 128 + dense
    assert flops.count_multiply_adds(model, (1, 1, 7, 7, 48)) == expected
    check_zero_padding(model, (1, 1, 7, 7, 48))


def test_size_of_the_reference_head():
    """torchvision's box_head, and its box_predictor without boxes of the background."""
    shapes = param_shapes(BoxHead(90, 1024, fc_layers=2), 1, 1, 7, 7, 256)
    layers = {path: leaf for path, leaf in shapes.items() if path.startswith("fc")}
    assert flops.count_parameters(layers) == 13_895_680
    assert flops.count_parameters(shapes) == 13_895_680 + 466_375 - 4 * 1025


def test_the_flattened_layer_is_torchs_linear_layer_of_channels_first():
    """torch flattens C, H, W; its weight [n, C P P] is our kernel [P, P, C, n] transposed."""
    random = np.random.RandomState(0)
    x, weight = random.standard_normal((4, 3, 3, 5)), random.standard_normal((6, 5 * 3 * 3))
    bias = random.standard_normal(6)
    kernel = weight.reshape(6, 5, 3, 3).transpose(2, 3, 1, 0)
    with jax.enable_x64(True):
        params = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
        actual = FlattenedDense(6).apply({"params": params}, jnp.asarray(x))
    expected = x.transpose(0, 3, 1, 2).reshape(4, -1) @ weight.T + bias
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_outputs_are_float32_and_separate_for_each_roi(class_agnostic):
    model = BoxHead(3, 8, **HEADS["separable"], class_agnostic=class_agnostic)
    params, stats = models.init(model, 0, (1, 1, 3, 3, 4))
    assert not stats  # no BatchNorm
    x = jax.random.normal(jax.random.key(0), (2, 3, 3, 3, 4), jnp.bfloat16)
    run = jax.jit(lambda x: models.apply(model, params, stats, x, train=False)[0])
    logits, deltas = run(x)
    assert (logits.shape, deltas.shape) == ((2, 3, 4), (2, 3, 1 if class_agnostic else 3, 4))
    assert logits.dtype == deltas.dtype == jnp.float32
    changed, _ = run(x.at[1, 2].add(1))
    np.testing.assert_array_equal((changed != logits).any(-1), [[0, 0, 0], [0, 0, 1]])


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_zero_padding_is_exact(head):
    """Ten steps of AdamW with padded channels and units equal those without, in float64."""
    with jax.enable_x64(True):
        small, large = (BoxHead(2, width, fc_layers=2, **HEADS[head]) for width in (4, 7))
        params, _ = models.init(small, 0, (1, 1, 3, 3, 3))
        params = {path: jnp.asarray(leaf, jnp.float64) for path, leaf in params.items()}
        shapes = {path: leaf.shape for path, leaf in param_shapes(large, 1, 1, 3, 3, 5).items()}
        padded = {path: jnp.asarray(leaf) for path, leaf in pad(params, shapes).items()}
        x = jnp.asarray(np.random.RandomState(0).standard_normal((2, 4, 3, 3, 3)))
        wide = jnp.pad(x, [(0, 0)] * 4 + [(0, 2)])
        expected, trained = train(small, params, x), train(large, padded, wide)
        unpadded = {path: leaf.shape for path, leaf in params.items()}
        for path, leaf in unpad(trained, unpadded).items():
            np.testing.assert_allclose(leaf, expected[path], rtol=1e-9, atol=1e-12)
            assert (np.abs(leaf - params[path]) > 1e-6).any()
            outside = np.array(trained[path])
            outside[tuple(slice(n) for n in unpadded[path])] = 0
            np.testing.assert_array_equal(outside, 0)


def train(model, params, x):
    tx = optax.adamw(1e-2, weight_decay=0.1)

    def loss(params):
        logits, deltas = models.apply(model, params, {}, x, train=True)[0]
        return (jnp.cos(logits + 1) ** 2).sum() + (jnp.sin(deltas + 1) ** 2).sum()

    def step(_, carry):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(lambda p: jax.lax.fori_loop(0, 10, step, (p, tx.init(p)))[0])(params)
