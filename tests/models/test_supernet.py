"""One architecture that holds several."""

import jax
import jax.numpy as jnp
import pytest

from tinyjax import models
from tinyjax.models.scaling import Architecture, Block
from tinyjax.models.supernet import GATES, gates, supernet


def ladder(family, *names):
    return [models.architecture(f"{family}/{name}") for name in names]


def test_of_one_it_is_the_same():
    (arch,) = ladder("efficientnet", "b-3")
    assert supernet([arch, arch]) == arch
    assert gates(arch, arch) == {}


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("mobilenetv3", [f"s-{k}" for k in range(1, 7)]),
        ("efficientnet", [f"b-{k}" for k in range(1, 8)]),
    ],
)
def test_a_ladder_shares_one(family, names):
    archs = ladder(family, *names)
    wide = supernet(archs)
    shapes = jax.eval_shape(
        lambda: models.init(models.build(f"{family}/{names[0]}", 10, wide=wide), 0, (1, 32, 32, 3))
    )
    for name, arch in zip(names, archs, strict=True):
        own = jax.eval_shape(
            lambda name=name: models.init(models.build(f"{family}/{name}", 10), 0, (1, 32, 32, 3))
        )
        for mine, theirs in zip(own, shapes, strict=True):
            for path, leaf in mine.items():
                assert len(leaf.shape) == len(theirs[path].shape)
                assert all(a <= b for a, b in zip(leaf.shape, theirs[path].shape, strict=True))
        numbers = {path for path in shapes[0] if path.rpartition("/")[2] in GATES}
        assert gates(arch, wide).keys() == numbers


def block(out, expand=24, **other):
    return Block(**{"kernel": 3, "stride": 1, "squeeze": 0, "act": "relu", **other},
                 expand=expand, out=out)  # fmt: skip


def test_gates_by_hand():
    # behind a stem of 8: the narrow one has a skip where the wide one has none, and no second block
    narrow = Architecture(8, ((block(8),),), 16)
    wide = Architecture(8, ((block(16), block(16)),), 24)
    both = supernet([narrow, wide])
    one, two = block(16, gates=("skip",)), block(16, gates=("alive",))
    assert both == Architecture(8, ((one, two),), 24)
    first, second = "stage1/block0", "stage1/block1"
    assert gates(narrow, both) == {f"{first}/skip": 1, f"{second}/alive": 0}
    assert gates(wide, both) == {f"{first}/skip": 0, f"{second}/alive": 1}


def test_rounding_may_leave_nothing_to_expand():
    a, b = (Architecture(8, ((block(8, expand),),), 16) for expand in (8, 24))
    both = supernet([a, b])
    assert both.stages[0][0].gates == ("expands",)
    assert [gates(arch, both) for arch in (a, b)] == [
        {"stage1/block0/expands": 0}, {"stage1/block0/expands": 1},
    ]  # fmt: skip


def test_a_skip_that_only_the_union_would_have_is_shut():
    a, b = (Architecture(stem, ((block(out),),), 16) for stem, out in ((8, 16), (16, 8)))
    both = supernet([a, b])
    assert both.stages[0][0].gates == ("skip",)
    assert gates(a, both)["stage1/block0/skip"] == 0


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"kernel": 5}, "differ in kernel of stage 1, block 0"),
        ({"act": "silu", "squeeze": 8}, "differ in activation and squeeze-excite of stage 1"),
    ],
)
def test_what_cannot_be_shared_is_named(other, message):
    a, b = (Architecture(8, ((block(16, **own),),), 16) for own in ({}, other))
    with pytest.raises(ValueError, match=message):
        supernet([a, b])


def test_families_cannot_be_shared():
    with pytest.raises(ValueError, match="cannot share a program"):
        supernet([models.architecture(name) for name in ("mobilenetv3/s-1", "efficientnet/b-1")])


def test_gates_are_what_they_say():
    """With skip 1 and alive 0 a block hands its input on, and gets no gradient."""
    narrow = Architecture(8, ((block(8),),), 8)
    both = supernet([narrow, Architecture(8, ((block(8), block(8)),), 8)])
    model = models.build("mobilenetv3/s-1", wide=both)
    x = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    params, stats = models.init(model, 0, x.shape)
    shut = {"stage1/block1/alive": jnp.float32(0)}

    def loss(params):
        (_, features), _ = models.apply(model, params | shut, stats, x, train=True)
        return (features[2] ** 2).sum(), features[2]

    (_, seen), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    own = models.build("mobilenetv3/s-1", wide=narrow)
    mine = {path: leaf for path, leaf in params.items() if "block1" not in path}
    (_, alone), _ = models.apply(own, mine, {p: s for p, s in stats.items() if p in
                                 models.init(own, 0, x.shape)[1]}, x, train=True)  # fmt: skip
    assert jnp.allclose(seen, alone[2], rtol=1e-6)
    assert all(not leaf.any() for path, leaf in gradient.items() if "block1" in path)
