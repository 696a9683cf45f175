"""Attention: torch's values and gradients, initial values, parameter counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from tests.recognition.make_references import (
    FILE,
    GROUPS,
    SHAPE,
    cbam_params,
    draw,
    shuffle_params,
)
from tinyjax.errors import UserError
from tinyjax.models.layers import SqueezeExcite
from tinyjax.recognition.attention import Cbam, ShuffleAttention, build_attention


@pytest.mark.parametrize(
    ("name", "module", "params"),
    [
        ("shuffle", ShuffleAttention(GROUPS), shuffle_params()),
        ("grouped", ShuffleAttention(GROUPS, shuffle=False), shuffle_params()),
        ("cbam", Cbam(), cbam_params()),
    ],
)
def test_values_and_gradients_are_those_of_torch(name, module, params):
    def apply(params, x):
        return module.apply({"params": unflatten_dict(params, sep="/")}, x)

    with jax.enable_x64(True), np.load(FILE) as reference:
        y, vjp = jax.vjp(apply, params, jnp.asarray(draw("x", SHAPE)))
        gradients, dx = vjp(jnp.asarray(draw("dy", SHAPE)))
        np.testing.assert_allclose(y, reference[f"{name}.y"], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(dx, reference[f"{name}.dx"], rtol=1e-9, atol=1e-12)
        for path, gradient in gradients.items():
            expected = reference[f"{name}.d{path}"]
            np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-12)


def test_initial_shuffle_attention_shuffles_in_two_groups():
    with jax.enable_x64(True):
        x = jnp.asarray(draw("x", (2, 3, 4, 16)))
        y, variables = ShuffleAttention(4).init_with_output(jax.random.key(0), x)
    order = [0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15]
    np.testing.assert_allclose(y, 0.7310585786300049 * np.asarray(x)[..., order], rtol=1e-12)
    sizes = [leaf.size for leaf in flatten_dict(variables["params"]).values()]
    assert sum(sizes) == 3 * 16 / 4


def test_half_of_the_gates_is_constant_on_maps_of_one_position():
    """Instance normalization is 0 there."""
    x, params = draw("x", (1, 1, 1, 8)), {k: v[:2] for k, v in shuffle_params().items()}
    y = ShuffleAttention(2, shuffle=False).apply({"params": params}, x.astype(np.float32))
    gate = params["spatial_scale"] * params["norm_bias"] + params["spatial_bias"]
    expected = x[0, 0, 0].reshape(2, 2, 2)[:, 1] / (1 + np.exp(-gate))
    np.testing.assert_allclose(y.reshape(2, 2, 2)[:, 1], expected, rtol=1e-5)


def test_squeeze_excite_reduces_to_a_sixteenth():
    assert build_attention("se", 32, 8, "a") == SqueezeExcite(2, "relu", "sigmoid", name="a")


@pytest.mark.parametrize("groups", [0, 5, 8])
def test_groups_must_divide_half_of_the_channels(groups):
    with pytest.raises(UserError, match=rf"groups = {groups}: .* 24 channels .* a divisor of 12"):
        ShuffleAttention(groups).init(jax.random.key(0), jnp.zeros((1, 2, 2, 24)))


def test_unknown_attention():
    with pytest.raises(UserError, match="attention = 'shufle': did you mean 'shuffle'"):
        build_attention("shufle", 32, 8, "attention")
