"""Members side by side: every operation equals that of vmap, in value and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tinyjax.models.layers import ACTIVATIONS, batch_norm, interleave, resize_channels
from tinyjax.ops import pooling
from tinyjax.ops.conv import conv2d
from tinyjax.population import wide, wide_rules
from tinyjax.population.wide import side_by_side

MEMBERS, SHAPE = 3, (4, 6, 5, 4)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=[1, 2])
def groups(request, monkeypatch):
    """The number of groups of the images of `SHAPE`, which are too few for groups otherwise."""
    monkeypatch.setattr(wide_rules, "MIN_IMAGES", SHAPE[0] // request.param)
    return request.param


def arrays(*shapes, members=MEMBERS, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=(members, *shape))) for shape in shapes]


def batch_statistics(x, scale, frozen):
    mean, var, bias = jnp.full(4, 0.1), jnp.full(4, 1.5), jnp.full(4, -0.2)
    y, mean, var = batch_norm(
        x, scale, bias, mean, var, train=True, eps=1e-5, momentum=0.1, frozen=frozen > 0
    )
    return y, mean * scale, var * scale


def squeeze_excite(x, kernel):
    gate = jax.nn.sigmoid(jax.nn.relu(x.mean((1, 2)) @ kernel) @ kernel.T)
    return x * gate[:, None, None, :]


def upsample(x):
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, -1, c)


# Functions of the output of a convolution [4, 6, 5, 4], which is wide, and of other arrays.
FUNCTIONS = {
    "dense": (lambda x, k: conv2d(x, k), (3, 3, 4, 6)),
    "dense, stride 2": (lambda x, k: conv2d(x, k, 2), (5, 5, 4, 6)),
    "pointwise": (lambda x, k: conv2d(x, k), (1, 1, 4, 6)),
    "depthwise": (lambda x, k: conv2d(x, k, 1, 4), (3, 3, 1, 4)),
    "depthwise, stride 2": (lambda x, k: conv2d(x, k, 2, 4), (5, 5, 1, 4)),
    "two groups": (lambda x, k: conv2d(x, k, 1, 2), (3, 3, 2, 6)),
    "BatchNorm": (batch_statistics, (4,), ()),
    "squeeze-excite": (squeeze_excite, (4, 2)),
    "last layer": (lambda x, k: x.reshape(4, 30, 4) @ k, (4, 3)),
    "gate of a member": (lambda x, gate: gate * x + (1 - gate) * x**2, ()),
    "more channels": (lambda x: resize_channels(x, 7) ** 2,),
    "fewer channels": (lambda x: resize_channels(x, 3) ** 2,),
    "interleaved channels": (lambda x: interleave(x, x**2),),
    "joined channels": (lambda x: jnp.concatenate([x, x[..., 1:3]], -1),),
    "joined images": (lambda x: jnp.concatenate([x, x**2])[1:],),
    "one image": (lambda x: x[1:2] * x + x[2] ** 2,),
    "mean of images": (lambda x: x - x.mean(0) + x.sum((0, 3), keepdims=True),),
    "joined rows": (lambda x: jnp.concatenate([x, x**2], 1),),
    "rows and columns": (lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)))[:, ::2, :, :],),
    "turned over": (lambda x: x[:, ::-1].swapaxes(1, 2)[..., None] ** 2,),
    "images turned over": (lambda x: x[::-1].swapaxes(0, 1) ** 2,),
    "upsampling": (upsample,),
    "max_pool": (pooling.max_pool,),
    "max_pool_2x2": (pooling.max_pool_2x2,),
    "mean_pool_2x2": (pooling.mean_pool_2x2,),
    "spatial_max": (pooling.spatial_max,),
    "norm over channels": (lambda x: x / jnp.sqrt((x * x).sum(-1, keepdims=True) + 1),),
    "softmax": (lambda x: jax.nn.log_softmax(x.mean((1, 2)))[:, 0],),
    "a loop": (lambda x: lax.fori_loop(0, 3, lambda i, x: jnp.sin(x), x),),
    "a sort": (lambda x: jnp.sort(x, 1),),
    **{name: (function,) for name, function in ACTIVATIONS.items()},
}


FAST = ("dense, stride 2", "depthwise, stride 2", "BatchNorm", "squeeze-excite", "last layer")


def every_operation(*fast):
    """Parametrize a test over FUNCTIONS; those that are not `fast` are marked slow."""
    slow = pytest.mark.slow
    names = [n if n in fast else pytest.param(n, marks=slow) for n in FUNCTIONS]
    return pytest.mark.parametrize("name", names)


def loss_of(function):
    """A loss of all outputs of a function of a convolution's output."""

    def loss(trained, rest):
        x, kernel, *others = trained
        outputs = function(conv2d(x, kernel), *others)
        leaves = jax.tree.leaves(outputs)
        return sum((leaf * jnp.cos(leaf)).sum() for leaf in leaves), outputs

    return loss


@every_operation(*FAST)
def test_operation_equals_vmap(name, groups):
    function, *shapes = FUNCTIONS[name]
    loss, trained = loss_of(function), arrays(SHAPE, (1, 1, 4, 4), *shapes)
    expected = jax.vmap(jax.value_and_grad(loss, has_aux=True))(trained, trained[0])
    actual = jax.vmap(wide.value_and_grad(loss))(trained, trained[0])
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@every_operation("last layer")
def test_gradient_of_operation_equals_finite_differences(name, groups):
    """In a random direction of all arrays, which has a slope in each member."""
    function, *shapes = FUNCTIONS[name]
    # The running statistics of BatchNorm have no gradient.
    loss = loss_of((lambda *a: batch_statistics(*a)[0]) if name == "BatchNorm" else function)
    trained = arrays(SHAPE, (1, 1, 4, 4), *shapes)
    directions = arrays(*(leaf.shape[1:] for leaf in trained), seed=1)
    _, gradients = jax.vmap(wide.value_and_grad(loss))(trained, trained[0])
    slopes = sum(
        (gradient * direction).reshape(MEMBERS, -1).sum(1)
        for gradient, direction in zip(gradients, directions, strict=True)
    )

    def losses_at(distance):
        moved = jax.tree.map(lambda leaf, d: leaf + distance * d, trained, directions)
        return jax.vmap(loss)(moved, trained[0])[0]

    distance = 1e-6
    expected = (losses_at(distance) - losses_at(-distance)) / (2 * distance)
    np.testing.assert_allclose(slopes, expected, rtol=1e-6, atol=1e-6)


def test_activations_have_the_channels_of_all_members_on_the_last_axis(groups):
    x, kernel = arrays(SHAPE, (1, 1, 4, 6))
    function = side_by_side(lambda x, k: jax.nn.hard_swish(conv2d(x, k, 2)), MEMBERS)
    traced = jax.make_jaxpr(function)(x, kernel)
    shapes = {e.outvars[0].aval.shape for e in traced.jaxpr.eqns if e.primitive.name == "mul"}
    assert shapes == {(4 // groups, 3, 3, 18 * groups)}


@pytest.mark.slow
def test_one_member_of_which_images_lie_side_by_side(groups):
    x, kernel, scale, depthwise = arrays(SHAPE, (1, 1, 4, 4), (4,), (3, 3, 1, 4), members=1)

    def loss(trained, frozen):
        x, kernel, scale, depthwise = trained
        y, mean, _ = batch_statistics(conv2d(x, kernel), scale, frozen)
        return (conv2d(y, depthwise, 2, 4) ** 2).sum(), mean

    arguments = (x, kernel, scale, depthwise), jnp.zeros(1)
    expected = jax.vmap(jax.value_and_grad(loss, has_aux=True))(*arguments)
    actual = jax.vmap(wide.value_and_grad(loss))(*arguments)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), actual, expected)


def test_forms_for_a_tpu_are_chosen_where_the_program_runs():
    def function(x):
        return lax.platform_dependent(x, tpu=jnp.sin, default=jnp.cos)

    members = side_by_side(function, MEMBERS)
    (x,) = arrays((4,))
    np.testing.assert_array_equal(members(x), jnp.cos(x))
    text = jax.export.export(jax.jit(members), platforms=["tpu"])(x).mlir_module()
    assert "stablehlo.sine" in text
    assert "stablehlo.cosine" not in text


def test_arrays_that_members_share():
    x, kernel = arrays(SHAPE, (3, 3, 4, 6))

    def loss(kernel, x):
        return jnp.square(conv2d(x, kernel)).sum(), x.mean()

    expected = jax.vmap(jax.value_and_grad(loss, has_aux=True), (0, None))(kernel, x[0])
    actual = jax.vmap(wide.value_and_grad(loss), (0, None))(kernel, x[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), actual, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", ["image", "kernel", "cotangent"])
def test_member_that_diverges_does_not_change_the_others(value, place, groups):
    x, first, second = arrays(SHAPE, (3, 3, 4, 6), (1, 1, 6, 5))

    def loss(kernels, rest):
        x, factor = rest
        y = conv2d(jax.nn.relu(conv2d(x, kernels[0])), kernels[1])
        return (y * factor).sum(), y

    factor = jnp.ones(MEMBERS)
    broken = {"image": (x.at[1, 0, 0, 0, 0].set(value), first, factor),
              "kernel": (x, first.at[1, 0, 0, 0, 0].set(value), factor),
              "cotangent": (x, first, factor.at[1].set(value))}[place]  # fmt: skip
    step = jax.vmap(wide.value_and_grad(loss))
    expected = step((first, second), (x, factor))
    x, first, factor = broken
    (losses, y), gradients = step((first, second), (x, factor))
    for a, b in zip(
        jax.tree.leaves(((losses, y), gradients)), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_array_equal(a[::2], b[::2])
    assert not np.isfinite(losses[1]) or not np.isfinite(gradients[0][1]).all()
