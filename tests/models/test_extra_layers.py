"""Adapters, squeeze-excite and repeated necks: the network's output does not change until they are
trained.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny_backbones import MICRO_CONVNEXT, MICRO_SWIN, TINY, TINY_SHALLOW
from tinyjax import models
from tinyjax.detectors.necks import PAN, NeckConfig
from tinyjax.detectors.point import PointDetector
from tinyjax.models.layers import ExtraLayers
from tinyjax.transfer.freezing import freeze_multipliers
from tinyjax.transfer.starting_weights import StartingWeights, fit_to_network

X = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
BOTH = ExtraLayers(adapters=True, excite="identity")
# Without fusion emitters, which tests disable, the sums of two programs are rounded differently.
jit_as_users = partial(jax.jit, compiler_options={"xla_cpu_use_fusion_emitters": True})


def is_extra(path):
    return "/adapter/" in path or "/excite/" in path


def features(model, params, stats, train=False):
    (_, by_stride), _ = models.apply(model, params, stats, X, train=train)
    return by_stride


@pytest.mark.parametrize(
    "name",
    [
        TINY_SHALLOW,
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("mobilenetv3/s-6", "efficientnet/b-7", MICRO_CONVNEXT, MICRO_SWIN)
        ),
    ],
)
def test_extra_layers_start_as_the_exact_identity(name):
    base = models.build(name)
    base_params, base_stats = models.init(base, 0, X.shape)
    extended = models.build(name, extra_layers=BOTH)
    params, stats = models.init(extended, 0, X.shape)
    assert base_params.keys() < params.keys()
    assert all(is_extra(path) for path in params.keys() - base_params.keys())
    for path, leaf in base_params.items():
        np.testing.assert_array_equal(params[path], leaf)
    run = jit_as_users(lambda p, s, train: features(extended, p, s, train), static_argnums=2)
    run_base = jit_as_users(lambda p, s, train: features(base, p, s, train), static_argnums=2)
    for train in (False, True):
        actual = run(params, stats, train)
        for stride, expected in run_base(base_params, base_stats, train).items():
            np.testing.assert_array_equal(actual[stride], expected)


def test_gates_of_the_authors_start_near_one_half():
    base = models.build(TINY_SHALLOW)
    extended = models.build(TINY_SHALLOW, extra_layers=ExtraLayers(excite="authors"))
    params, stats = models.init(extended, 0, X.shape)
    base_params = {path: leaf for path, leaf in params.items() if not is_extra(path)}
    gated = jax.jit(partial(features, extended))(params, stats)
    ungated = jax.jit(partial(features, base))(base_params, stats)
    ratio = np.asarray(gated[4]).std() / np.asarray(ungated[4]).std()  # after one stage
    assert 0.4 < ratio < 0.6


def test_extra_layers_receive_gradients():
    """Adapter kernels in the first step; parameters that zeros hide from it in the second."""
    model = models.build(TINY_SHALLOW, extra_layers=BOTH)
    params, stats = models.init(model, 0, X.shape)

    def loss(params):
        by_stride = features(model, params, stats, True)
        return sum((jnp.cos(jnp.arange(f.shape[-1])) * f**2).sum() for f in by_stride.values())

    gradient = jax.jit(jax.grad(loss))
    first = gradient(params)
    second = gradient({path: leaf - 1e-3 * first[path] for path, leaf in params.items()})
    for path in params:
        if "adapter" in path or "excite" in path:
            hidden = path.endswith(("bn/scale", "bn/bias")) or "reduce" in path
            assert (np.asarray((second if hidden else first)[path]) != 0).any(), path


@pytest.mark.parametrize("name", [TINY, MICRO_CONVNEXT, MICRO_SWIN])
def test_presets_keep_extra_layers_trainable(name):
    model = models.build(name, extra_layers=BOTH)
    params, stats = jax.eval_shape(lambda: models.init(model, 0, X.shape))
    paths = [f"backbone/{path}" for path in (*params, *stats)]
    for preset, stages in (("backbone", 5), ("stage<=2", 2)):
        for path, multiplier in freeze_multipliers(paths, (preset,)).items():
            stage = 0 if "/stem/" in path else int(path.split("/")[1].removeprefix("stage"))
            trains = is_extra(path) or stage > stages
            assert multiplier == (1.0 if trains else 0.0), path


def test_weights_without_extra_layers_fit_and_extra_layers_are_new():
    def arrays(extra_layers, seed):
        trees = models.init(models.build(TINY, extra_layers=extra_layers), seed, X.shape)
        return {f"backbone/{path}": leaf for tree in trees for path, leaf in tree.items()}

    loaded = {path: np.asarray(leaf) for path, leaf in arrays(ExtraLayers(), 1).items()}
    fitted = fit_to_network(StartingWeights("file", loaded, 0.0), arrays(BOTH, 0))
    assert {*fitted.loaded} == {*loaded}
    assert all(is_extra(path) for path in fitted.new)
    assert not fitted.skipped


def test_neck_repeats_add_fusion_paths():
    """The first repeat is the standard neck; each further one starts from the coarsest level."""
    paths = {}
    for repeats in (1, 2, 3):
        model = PointDetector(models.build(TINY), 2, neck=NeckConfig(repeats=repeats))
        params, _ = jax.eval_shape(lambda model=model: models.init(model, 0, (1, 64, 64, 1)))
        paths[repeats] = {path for path in params if path.startswith("neck/")}
    assert paths[1] < paths[2] < paths[3]
    new = {path.split("/")[1] for path in paths[3] - paths[2]}
    assert new == {f"fusion2_down{s}" for s in (16, 32)} | {
        "fusion3_down8",
        *(f"fusion3_up{s}" for s in (4, 8, 16, 32)),
    }


class NeckOfPyramid(nn.Module):
    """A repeated neck on features [B, 16, 16, C] of stride 4 and on their coarser samples."""

    @nn.compact
    def __call__(self, x, train):
        pyramid = {stride: x[:, :: stride // 4, :: stride // 4] for stride in (4, 8, 16, 32)}
        return PAN(8, (8, 16), repeats=2, name="neck")(pyramid, train)


@pytest.mark.slow
def test_every_parameter_of_a_repeated_neck_receives_a_gradient():
    model = NeckOfPyramid()
    x = jax.random.normal(jax.random.key(0), (2, 16, 16, 8))
    params, stats = models.init(model, 0, x.shape)

    def loss(params):
        levels, _ = models.apply(model, params, stats, x, train=True)
        # Weights that vary by position: a plain sum after BatchNorm would have no gradient.
        return sum((jnp.cos(jnp.arange(y.size)) * y.ravel()).sum() for y in levels.values())

    gradient = jax.jit(jax.grad(loss))(params)
    assert any("fusion2" in path for path in gradient)
    assert [path for path, leaf in gradient.items() if not (leaf != 0).any()] == []
