"""Supernets: one architecture that contains several."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from tinyjax import models
from tinyjax.models import convnext, swin
from tinyjax.models.scaling import Architecture, MBConv
from tinyjax.models.supernet import GATES, gate_values, merge_architectures


def architectures(family, *names):
    return [models.architecture(f"{family}/{name}") for name in names]


def block(out, expand=24, **settings):
    defaults = {"kernel": 3, "stride": 1, "squeeze": 0, "act": "relu"}
    return MBConv(**{**defaults, **settings}, expand=expand, out=out)


def one_stage(stem, *blocks, head=16):
    return Architecture(stem, (blocks,), head)


def test_supernet_of_one_architecture_is_itself():
    (arch,) = architectures("efficientnet", "b-3")
    assert merge_architectures([arch, arch]) == arch
    assert gate_values(arch, arch) == {}


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("mobilenetv3", [f"s-{k}" for k in range(1, 7)]),
        ("efficientnet", [f"b-{k}" for k in range(1, 8)]),
        ("ghostnet", [f"g-{k}" for k in range(1, 7)]),
    ],
)
def test_supernet_contains_a_whole_family(family, names, shapes):
    archs = architectures(family, *names)
    supernet = merge_architectures(archs)

    model = models.build(f"{family}/{names[0]}", 1000, supernet=supernet)
    supernet_shapes = jax.eval_shape(lambda: models.init(model, 0, (1, 64, 64, 3)))
    gates = {path for path in supernet_shapes[0] if path.rpartition("/")[2] in GATES}
    for name, arch in zip(names, archs, strict=True):
        member_trees = shapes(f"{family}/{name}")
        for member_tree, supernet_tree in zip(member_trees, supernet_shapes, strict=True):
            for path, leaf in member_tree.items():
                limit = supernet_tree[path].shape
                assert len(leaf.shape) == len(limit)
                assert all(a <= b for a, b in zip(leaf.shape, limit, strict=True))
        assert gate_values(arch, supernet).keys() == gates


def test_gates_by_hand():
    # After a stem of 8, the narrow network has a skip where the wide one has none, and lacks the
    # second block.
    narrow = one_stage(8, block(8))
    wide = one_stage(8, block(16), block(16), head=24)
    supernet = merge_architectures([narrow, wide])
    assert supernet == one_stage(
        8, block(16, gates=("skip",)), block(16, gates=("alive",)), head=24
    )
    first, second = "stage1/block0", "stage1/block1"
    assert gate_values(narrow, supernet) == {f"{first}/skip": 1, f"{second}/alive": 0}
    assert gate_values(wide, supernet) == {f"{first}/skip": 0, f"{second}/alive": 1}


def test_gate_for_a_block_without_expansion():
    a, b = (one_stage(8, block(8, expand)) for expand in (8, 24))
    supernet = merge_architectures([a, b])
    assert supernet.stages[0][0].gates == ("expands",)
    assert gate_values(a, supernet) == {"stage1/block0/expands": 0}
    assert gate_values(b, supernet) == {"stage1/block0/expands": 1}


def test_skip_that_only_the_supernet_would_have_is_closed():
    a, b = one_stage(8, block(16)), one_stage(16, block(8))
    supernet = merge_architectures([a, b])
    assert supernet.stages[0][0].gates == ("skip",)
    assert gate_values(a, supernet)["stage1/block0/skip"] == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel": 5}, "differ in kernel of stage 1, block 0"),
        ({"act": "silu", "squeeze": 8}, "differ in squeeze and act of stage 1"),
    ],
)
def test_error_names_what_cannot_be_shared(settings, message):
    a, b = one_stage(8, block(16)), one_stage(8, block(16, **settings))
    with pytest.raises(ValueError, match=message):
        merge_architectures([a, b])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        # A unit splits its input at half of its own channels.
        (("shufflenetv2/n-4", "shufflenetv2/n-5"), "differ in out of stage 1, block 0"),
        # G-7 has as many channels before the block as after it, and no layers in its shortcut.
        (("ghostnet/g-6", "ghostnet/g-7"), "differ in shortcut of stage 7, block 3"),
    ],
)
def test_sizes_that_cannot_share_a_supernet(names, message):
    with pytest.raises(ValueError, match=f"{message} cannot share a program"):
        merge_architectures(map(models.architecture, names))


def test_families_cannot_share_a_supernet():
    archs = [models.architecture(name) for name in ("mobilenetv3/s-1", "efficientnet/b-1")]
    with pytest.raises(ValueError, match="cannot share a program"):
        merge_architectures(archs)


@pytest.mark.parametrize(
    "archs",
    [
        [convnext.make_architecture(width, (1, 2)) for width in (8, 16)],
        [convnext.make_architecture(8, (1, depth)) for depth in (1, 2)],
        [swin.make_architecture(width, (1, 2), heads=2) for width in (8, 16)],
        [swin.make_architecture(8, (1, depth), heads=2) for depth in (1, 2)],
        [swin.make_architecture(8, (1, 2), heads) for heads in (1, 2)],
    ],
)
def test_networks_with_layer_norm_share_a_program_only_with_equal_ones(archs):
    with pytest.raises(ValueError, match=r"differ in .* of stage .* cannot share a program"):
        merge_architectures(archs)
    assert merge_architectures(archs[:1] * 2) == archs[0]


def test_absent_block_passes_its_input_through_and_gets_no_gradient():
    shallow = Architecture(8, ((block(8),),), 8)
    deep = Architecture(8, ((block(8), block(8)),), 8)
    model = models.build("mobilenetv3/s-1", supernet=merge_architectures([shallow, deep]))
    x = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    params, stats = models.init(model, 0, x.shape)
    absent = {"stage1/block1/alive": jnp.float32(0)}

    def loss(params):
        (_, features), _ = models.apply(model, params | absent, stats, x, train=True)
        return (features[2] ** 2).sum(), features[2]

    (_, output), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    shallow_model = models.build("mobilenetv3/s-1", supernet=shallow)
    shallow_params = {path: leaf for path, leaf in params.items() if "block1" not in path}
    shallow_stats = {path: leaf for path, leaf in stats.items() if "block1" not in path}
    apply_shallow = jax.jit(partial(models.apply, shallow_model, train=True))
    (_, expected), _ = apply_shallow(shallow_params, shallow_stats, x)
    assert jnp.allclose(output, expected[2], rtol=1e-5, atol=1e-6)
    assert all(not leaf.any() for path, leaf in gradient.items() if "block1" in path)
