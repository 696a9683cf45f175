"""What is added to a backbone whose weights exist: nothing changes until it is trained."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinyjax import models
from tinyjax.detectors.point import Detector
from tinyjax.models.layers import Added
from tinyjax.transfer.freezing import multipliers
from tinyjax.transfer.starting_weights import Weights, fit

NAMES = ["mobilenetv3/s-6", "efficientnet/b-7"]
X = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
# The older way to write loops, which tests compile by, rounds two programs' sums differently.
as_users = partial(jax.jit, compiler_options={"xla_cpu_use_fusion_emitters": True})


def features(model, params, stats, train=False):
    (_, found), _ = models.apply(model, params, stats, X, train=train)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_it_starts_as_nothing_to_the_last_bit(name):
    plain = models.build(name)
    params, stats = models.init(plain, 0, X.shape)
    more = models.build(name, added=Added(adapters=True, excite="identity"))
    own, own_stats = models.init(more, 0, X.shape)
    assert params.keys() < own.keys()
    assert all("/adapter/" in path or "/excite/" in path for path in own.keys() - params.keys())
    for path, leaf in params.items():
        np.testing.assert_array_equal(own[path], leaf)  # drawn as without what was added
    run = as_users(lambda p, s, train: features(more, p, s, train), static_argnums=2)
    base = as_users(lambda p, s, train: features(plain, p, s, train), static_argnums=2)
    for train in (False, True):
        found, wanted = run(own, own_stats, train), base(params, stats, train)
        for stride, leaf in wanted.items():
            np.testing.assert_array_equal(found[stride], leaf)


def test_gates_as_the_authors_draw_them_begin_near_a_half():
    name = NAMES[0]
    plain, authors = models.build(name), models.build(name, added=Added(excite="authors"))
    params, stats = models.init(authors, 0, X.shape)
    own = {path: leaf for path, leaf in params.items() if "/excite/" not in path}
    gated, free = features(authors, params, stats), features(plain, own, stats)
    ratio = np.asarray(gated[4]).std() / np.asarray(free[4]).std()  # behind one stage
    assert 0.4 < ratio < 0.6


def test_what_is_added_learns():
    """The adapters' kernels from the first step, what lies behind zeros from the second."""
    model = models.build(NAMES[0], added=Added(adapters=True, excite="identity"))
    params, stats = models.init(model, 0, X.shape)

    def loss(params):
        found = features(model, params, stats, True)
        return sum((jnp.cos(jnp.arange(f.shape[-1])) * f**2).sum() for f in found.values())

    slope = jax.jit(jax.grad(loss))
    first = slope(params)
    moved = {path: leaf - 1e-3 * first[path] for path, leaf in params.items()}
    second = slope(moved)
    for path in params:
        if "adapter" in path or "excite" in path:
            there = second if path.endswith(("bn/scale", "bn/bias")) or "reduce" in path else first
            assert (np.asarray(there[path]) != 0).any(), path


def test_presets_leave_it_trainable():
    model = models.build(NAMES[0], added=Added(adapters=True, excite="identity"))
    params, stats = jax.eval_shape(lambda: models.init(model, 0, X.shape))
    paths = [f"backbone/{path}" for path in (*params, *stats)]
    for preset, stages in (("backbone", 5), ("stage<=2", 2)):
        found = multipliers(paths, (preset,))
        for path, rate in found.items():
            added = "/adapter" in path or "/excite" in path
            of = 0 if "/stem/" in path else int(path.split("/")[1].removeprefix("stage"))
            assert rate == (1.0 if added or of > stages else 0.0), path


def test_old_weights_fit_and_what_is_added_is_new():
    plain, more = (models.build(NAMES[0], added=a) for a in (Added(), Added(True, "identity")))
    theirs, theirs_stats = models.init(plain, 1, X.shape)
    ours, ours_stats = models.init(more, 0, X.shape)
    at = lambda *trees: {f"backbone/{p}": leaf for tree in trees for p, leaf in tree.items()}  # noqa: E731
    weights = Weights("old", {p: np.asarray(x) for p, x in at(theirs, theirs_stats).items()}, 0.0)
    fitted = fit(weights, at(ours, ours_stats))
    assert {*fitted.loaded} == {*at(theirs, theirs_stats)}
    assert all("/adapter" in path or "/excite" in path for path in fitted.new)
    assert not fitted.skipped


def test_a_neck_that_joins_its_levels_again():
    """Its first part is the plain neck's; each further one reaches down from the coarsest level."""
    shapes = {}
    for fusions in (1, 2, 3):
        model = Detector(models.build(NAMES[0]), 2, (4, 8), 0, fusions)
        params, _ = jax.eval_shape(lambda model=model: models.init(model, 0, (1, 64, 64, 1)))
        shapes[fusions] = {path for path in params if path.startswith("neck/")}
    assert shapes[1] < shapes[2] < shapes[3]
    new = {path.split("/")[1] for path in shapes[3] - shapes[2]}
    assert new == {f"fusion2_down{s}" for s in (16, 32)} | {
        "fusion3_down8",
        *(f"fusion3_up{s}" for s in (4, 8, 16, 32)),
    }


def test_every_part_of_it_receives_a_gradient():
    model = Detector(models.build("efficientnet/b-7"), 2, (8, 16), 0, 2)
    params, stats = models.init(model, 0, (1, 64, 64, 1))
    x = jax.random.normal(jax.random.key(0), (2, 64, 64, 1))

    def loss(params):
        (logits, offsets), _ = models.apply(model, params, stats, x, train=True)
        weigh = jnp.cos(jnp.arange(logits.shape[1]))[None, :, None]
        return (weigh * logits).sum() + (weigh * offsets).sum()

    slopes = jax.jit(jax.grad(loss))(params)
    assert [path for path, slope in slopes.items() if not (slope != 0).any()] == []
