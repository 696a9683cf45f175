"""The point detector: shapes, order of rows, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny_backbones import TINY, TINY_GHOSTNET, TINY_SHALLOW, TINY_SHUFFLENETV2
from tinyjax import models
from tinyjax.config.defaults import detector
from tinyjax.detectors import point
from tinyjax.detectors.grid import make_grid
from tinyjax.detectors.necks import upsample
from tinyjax.detectors.point import PointDetector
from tinyjax.errors import UserError
from tinyjax.models import flops

SMALL = [f"mobilenetv3/s-{k}" for k in range(1, 7)] + [f"efficientnet/b-{k}" for k in range(2, 8)]
LARGEST = ("mobilenetv3/s-1", "efficientnet/b-2")


def init_shapes(model):
    return jax.eval_shape(lambda: models.init(model, 0, (1, 64, 64, 1)))


@pytest.mark.parametrize(
    "name", [n if n in LARGEST else pytest.param(n, marks=pytest.mark.slow) for n in SMALL]
)
def test_small_detectors_have_under_a_million_parameters(name):
    params, _ = init_shapes(PointDetector(models.build(name), classes=3))
    backbone = flops.count_parameters(
        {k: v for k, v in params.items() if k.startswith("backbone/")}
    )
    assert backbone < flops.count_parameters(params) < 1_000_000
    assert {k.split("/")[0] for k in params} == {"backbone", "neck", "head"}


@pytest.mark.parametrize("strides", [(4, 8), (8,), (4, 8, 16), (8, 16, 32)])
@pytest.mark.parametrize("size", [pytest.param((64, 96), marks=pytest.mark.slow), (72, 50)])
def test_outputs_have_one_row_per_cell(strides, size):
    model = PointDetector(models.build(TINY), 5, strides)
    x = jax.ShapeDtypeStruct((2, *size, 1), jnp.float32)
    params, stats = init_shapes(model)
    logits, offsets = jax.eval_shape(
        lambda p, s, x: models.apply(model, p, s, x, train=False)[0], params, stats, x
    )
    n = len(make_grid(*size, strides).cell_strides)
    assert (logits.shape, offsets.shape) == ((2, n, 5), (2, n, 4))
    assert logits.dtype == offsets.dtype == jnp.float32


def build_with_strides(backbone, strides):
    config = detector("point")
    config.model.strides = strides
    return point.build(backbone, config, 5)


def test_a_pooled_stem_is_a_level_at_stride_4():
    backbone = models.build(TINY_SHUFFLENETV2)
    model = build_with_strides(backbone, (4, 8))
    params, stats = init_shapes(model)
    assert params["neck/lateral4/kernel"].shape[2] == backbone.arch.stem
    x = jax.ShapeDtypeStruct((2, 72, 50, 1), jnp.float32)
    (logits, _), _ = jax.eval_shape(
        lambda p, s, x: models.apply(model, p, s, x, train=False), params, stats, x
    )
    assert logits.shape == (2, 18 * 13 + 9 * 7, 5)
    short = backbone.clone(arch=backbone.arch._replace(stages=backbone.arch.stages[:1]))
    with pytest.raises(UserError, match="at strides 16, but the backbone has them at 4, 8 only"):
        build_with_strides(short, (4, 8))


def test_rows_are_in_the_order_of_the_grid():
    """A bright spot changes the outputs of nearby cells most, at both levels."""
    model = PointDetector(models.build(TINY), 2)
    params, stats = models.init(model, 0, (1, 64, 96, 1))
    grid = make_grid(64, 96, (4, 8))
    dark = jnp.zeros((1, 64, 96, 1))
    spot = dark.at[0, 38:42, 70:74].set(5.0)
    path = "head/box_out/kernel"
    params = {**params, path: 100 * params[path]}
    offsets = jax.jit(lambda x: models.apply(model, params, stats, x, train=False)[0][1])
    change = np.abs(np.asarray(offsets(spot) - offsets(dark))).sum(-1)[0]
    for start, end in ((0, grid.level_starts[1]), (grid.level_starts[1], len(change))):
        center = grid.cell_centers[start:end][change[start:end].argmax()]
        assert np.abs(center - [72, 40]).max() <= 16


@pytest.mark.parametrize(
    ("name", "neck_width"),
    [
        (TINY_SHALLOW, 16),
        pytest.param("mobilenetv3/s-5", 0, marks=pytest.mark.slow),
        pytest.param("efficientnet/b-7", 0, marks=pytest.mark.slow),
        pytest.param(TINY_SHUFFLENETV2, 0, marks=pytest.mark.slow),
        pytest.param(TINY_GHOSTNET, 0, marks=pytest.mark.slow),
    ],
)
def test_every_parameter_receives_a_gradient(name, neck_width):
    model = PointDetector(models.build(name), 3, neck_width=neck_width)
    params, stats = models.init(model, 0, (1, 64, 64, 1))
    x = jax.random.normal(jax.random.key(0), (2, 64, 64, 1))

    def loss(params):
        (logits, offsets), _ = models.apply(model, params, stats, x, train=True)
        # Weights that vary by cell: a plain sum after BatchNorm would have no gradient.
        weights = jnp.cos(jnp.arange(logits.shape[1]))[None, :, None]
        return (weights * logits).sum() + (weights * offsets).sum()

    gradients = jax.jit(jax.grad(loss))(params)
    assert [path for path, gradient in gradients.items() if not (gradient != 0).any()] == []


def test_upsample_doubles_and_crops():
    x = jnp.arange(4.0).reshape(1, 2, 2, 1)
    expected = [[0, 0, 1], [0, 0, 1], [2, 2, 3]]
    np.testing.assert_array_equal(upsample(x, (3, 3))[0, ..., 0], expected)
