"""A network padded into the union of several trains as it does alone: in float64, 20 steps."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinyjax import models, step
from tinyjax.core import ModelFunctions, Variables
from tinyjax.detectors.grid import make_grid
from tinyjax.detectors.losses import detection_loss
from tinyjax.detectors.point import PointDetector
from tinyjax.errors import UserError
from tinyjax.models.classifier import Classifier
from tinyjax.models.layers import NO_EXTRA_LAYERS, ExtraLayers
from tinyjax.models.scaling import Architecture, Block
from tinyjax.models.supernet import gate_values, merge_architectures
from tinyjax.population.pad import check_zero_padding, pad, unpad

SIDE, STEPS = 32, 20
HYPER = {"seed": 0, "weight_decay": 0.05, "ema": 0.9}
# AdamW divides rounding errors of gradients that are 0 in theory by its eps of 1e-8.
RATES = {"adamw": 0.002, "sgd": 0.02}
LOSS = {"class": 1.0, "box": 2.0, "offset": 0.25}


def small(stem, outs, depths, expand, act, squeeze, head, hidden=0):
    """A backbone of five stages with all that a family's blocks may have."""
    stages, inputs = [], stem
    for stage, (out, depth) in enumerate(zip(outs, depths, strict=True)):
        blocks = []
        for i in range(depth):
            stride = 2 if i == 0 and stage else 1
            wide = expand * inputs if stage else expand  # the first may have nothing to expand
            blocks.append(Block(3, stride, wide, out, squeeze and squeeze + inputs, act))
            inputs = out
        stages.append(tuple(blocks))
    return Architecture(stem, tuple(stages), head, hidden)


# The narrow one has a skip in stage 1 where the wide one has none, no expansion there, and fewer
# blocks in stage 2; the wide one has fewer in stage 3.
ARCHS = {
    "mobilenetv3/s-1": (
        small(8, (8, 8, 16, 16, 16), (1, 1, 2, 1, 1), 8, "hard_swish", 2, 24, 8),
        small(8, (16, 16, 24, 16, 24), (1, 2, 1, 1, 1), 12, "hard_swish", 3, 32, 16),
    ),
    "efficientnet/b-1": (
        small(8, (8, 8, 16, 16, 16), (1, 1, 2, 1, 1), 8, "silu", 2, 24),
        small(8, (16, 16, 24, 16, 24), (1, 2, 1, 1, 1), 12, "silu", 3, 32),
    ),
}


def network(name, kind, arch, added=NO_EXTRA_LAYERS):
    """added: where something is, the neck joins its levels twice, too."""
    classes = 5 if kind == "classify" else None
    backbone = models.build(name, classes, jnp.float64, supernet=arch, extra_layers=added)
    if kind == "classify":
        return Classifier(backbone)
    return PointDetector(backbone, 3, neck_repeats=1 if added == NO_EXTRA_LAYERS else 2)


def task_of(model, kind):
    """A task without augmentation: its loss is the kind's own."""
    grid = make_grid(SIDE, SIDE, (4, 8))

    def init(seed):
        trees = models.init(model, seed, (1, SIDE, SIDE, 3))
        return Variables(*jax.tree.map(lambda leaf: leaf.astype(jnp.float64), trees))

    def loss(variables, fixed, batch, key, hyper):
        image = batch["image"]
        out, stats = models.apply(model, *variables, image, train=True, frozen_batchnorm=fixed)
        if kind == "detect":
            value, _ = detection_loss(*out, batch, LOSS, grid)
        else:
            value = -(batch["targets"] * jax.nn.log_softmax(out)).mean()
        return value, (stats, {})

    return ModelFunctions(init, loss, lambda *_: {})


def batches():
    random = np.random.default_rng(0)
    low = random.uniform(0, 24, (STEPS, 4, 3, 2))
    return [
        {
            "image": jnp.asarray(random.normal(size=(4, SIDE, SIDE, 3))),
            "targets": jax.nn.one_hot(random.integers(0, 5, 4), 5, dtype=jnp.float64),
            "boxes": jnp.asarray(np.concatenate([low[i], low[i] + 7], -1)),
            "labels": jnp.asarray(random.integers(0, 3, (4, 3))),
            "valid": jnp.asarray([[True, True, False]] * 4),
            "ignore": jnp.zeros((4, 3), bool),
        }
        for i in range(STEPS)
    ]


def trained(task, variables, tx, moving, hyper):
    state = step.init_state(variables, tx, moving)
    take = jax.jit(step.make_step(task, tx, lambda step: 1.0, moving))
    losses = []
    for batch in batches():
        state, metrics = take(state, batch, hyper)
        losses.append(float(metrics["loss"]))
    return state, np.array(losses)


def check_padded_is_alone(name, kind, own, archs, optimizer, frozen, added=NO_EXTRA_LAYERS):
    """frozen: how the paths of stage 1 that freeze do so: "no", by "structure" or by an "array"."""
    with jax.enable_x64(True):
        wide = merge_architectures(archs)
        tasks = [task_of(network(name, kind, arch, added), kind) for arch in (own, wide)]
        alone = tasks[0].init(0)
        shapes = jax.eval_shape(tasks[1].init, 0)
        shapes = Variables(*({p: x.shape for p, x in tree.items()} for tree in shapes))
        numbers = {f"backbone/{path}": np.float64(v) for path, v in gate_values(own, wide).items()}
        padded = Variables(
            pad(alone.params | numbers, shapes.params), pad(alone.stats, shapes.stats)
        )
        assert padded.params.keys() > alone.params.keys()
        tx = step.make_optimizer(optimizer, 0.9, 0.999, 1.0)
        paths = [*shapes.params, *shapes.stats]
        rates = {p: 0.0 if p in numbers else 1.0 for p in paths}
        hyper = {**HYPER, "lr": RATES[optimizer]}
        if frozen != "no":
            stage = {p for p in paths if p.startswith("backbone/stage1/")} - numbers.keys()
            rates |= dict.fromkeys(stage, 0.0 if frozen == "structure" else 1.0)
            if frozen == "array":
                hyper["multiplier"] = {p: jnp.float64(0) for p in stage}
        ends = []
        for task, variables in zip(tasks, (alone, padded), strict=True):
            there = {**variables.params, **variables.stats}
            moving = step.trainable({p: rates[p] for p in there})
            mine = {p: x for p, x in hyper.get("multiplier", {}).items() if p in there}
            values = {**hyper, "multiplier": mine} if mine else hyper
            ends.append(trained(task, variables, tx, moving, values))
        (a, losses), (b, padded_losses) = ends
        np.testing.assert_allclose(padded_losses, losses, rtol=1e-9)
        assert losses[-1] != losses[0]
        for weights in (lambda s: s.weights, lambda s: s.ema):
            one, other = (state.variables(weights(state)) for state in (a, b))
            for mine, theirs in zip(one, other, strict=True):
                inside = unpad(theirs, {path: x.shape for path, x in mine.items()})
                for path, leaf in mine.items():
                    moved = STEPS * RATES[optimizer]  # as far as updates of AdamW reach
                    near = 1e-9 * max(np.abs(leaf).max(), moved)
                    np.testing.assert_allclose(inside[path], leaf, rtol=0, atol=near)
                # what is not its own is exactly 0: taken out, nothing is left
                live = pad(inside, {path: x.shape for path, x in theirs.items()})
                for path, leaf in theirs.items():
                    if path not in numbers:
                        np.testing.assert_array_equal(leaf, live[path])
        moved = a.variables(a.weights).params
        # kernels: a bias that BatchNorm takes away again may have a gradient of exactly 0
        kernels = [p for p in moved if p.endswith("/kernel")]
        still = [p for p in kernels if np.array_equal(moved[p], alone.params[p])]
        assert all(p.startswith("backbone/stage1/") for p in still)
        assert bool(still) == (frozen != "no")


@pytest.mark.parametrize(
    ("name", "kind", "optimizer", "frozen", "which"),
    [
        ("mobilenetv3/s-1", "classify", "adamw", "array", 0),
        ("efficientnet/b-1", "classify", "sgd", "structure", 1),
        ("mobilenetv3/s-1", "detect", "adamw", "no", 0),
        pytest.param("efficientnet/b-1", "detect", "sgd", "array", 0, marks=pytest.mark.slow),
        pytest.param("mobilenetv3/s-1", "detect", "sgd", "structure", 1, marks=pytest.mark.slow),
    ],
)
def test_padded_is_alone(name, kind, optimizer, frozen, which):
    archs = ARCHS[name]
    check_padded_is_alone(name, kind, archs[which], archs, optimizer, frozen)


@pytest.mark.parametrize(
    ("kind", "added"),
    [
        ("classify", ExtraLayers(adapters=True, excite="authors")),
        pytest.param("detect", ExtraLayers(True, "identity"), marks=pytest.mark.slow),
    ],
)
def test_with_what_is_added(kind, added):
    archs = ARCHS["mobilenetv3/s-1"]
    check_padded_is_alone("mobilenetv3/s-1", kind, archs[0], archs, "adamw", "no", added)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("kind", ["classify", "detect"])
@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("mobilenetv3", [f"s-{k}" for k in range(1, 7)]),
        ("efficientnet", [f"b-{k}" for k in range(2, 8)]),
    ],
)
def test_a_ladders_last_is_itself_among_them(family, names, kind, optimizer):
    archs = [models.architecture(f"{family}/{name}") for name in names]
    name = f"{family}/{names[0]}"
    check_padded_is_alone(name, kind, archs[-1], archs, optimizer, "array")


def test_cut_undoes_pad():
    tree = {"a": np.arange(6.0).reshape(2, 3), "b": np.float32(3)}
    shapes = {"a": (4, 3), "b": (), "c": (2, 2)}
    padded = pad(tree, shapes)
    assert {path: x.shape for path, x in padded.items()} == shapes
    assert padded["a"].sum() == tree["a"].sum()
    assert not padded["c"].any()
    back = unpad(padded, {path: np.shape(x) for path, x in tree.items()})
    assert back.keys() == tree.keys()
    np.testing.assert_array_equal(back["a"], tree["a"])


def test_what_cannot_be_padded_is_refused():
    with pytest.raises(ValueError, match="no shape to pad b to"):
        pad({"b": np.zeros(2)}, {"a": (2,)})
    with pytest.raises(ValueError, match=r"a: \(3,\) does not fit into \(2,\)"):
        pad({"a": np.zeros(3)}, {"a": (2,)})


class Normalized(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.LayerNorm(name="norm")(x)


def test_modules_that_mix_channels_are_refused():
    for name in ARCHS:
        for kind in ("classify", "detect"):
            check_zero_padding(network(name, kind, None), (1, SIDE, SIDE, 3))
            check_zero_padding(
                network(name, kind, None, ExtraLayers(True, "identity")), (1, SIDE, SIDE, 3)
            )
    with pytest.raises(UserError, match="layers_0/norm: LayerNorm is not known to keep"):
        check_zero_padding(nn.Sequential([Normalized()]), (1, SIDE, SIDE, 3))
