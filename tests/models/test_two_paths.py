"""Networks with two paths: TOPLight's blocks, parameter counts, training and prediction."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from tests.tiny_backbones import (
    MICRO_CONVNEXT,
    MICRO_LIGHTCNN,
    MICRO_SWIN,
    MICRO_VIT,
    TINY,
    TINY_GHOSTNET,
    TINY_SHUFFLENETV2,
)
from tinyjax import models
from tinyjax.errors import UserError
from tinyjax.models import flops
from tinyjax.models.path_blocks import block_of, stage_slices
from tinyjax.models.supernet import gate_values, merge_architectures

quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

# stages, or slices (stage, first, last) of them, in blocks 1 to 6
BLOCKS = {
    "mobilenetv3/large": ([1], [(2, 0, 1)], [(2, 1, None)], [3], [4, 5], [6]),
    "mobilenetv3/small": ([1], [(2, 0, 1)], [(2, 1, None)], [3], [4], [5]),
    "efficientnet/b0": ([1], [(2, 0, 1)], [(2, 1, None)], [3], [4, 5], [6, 7]),
    "ghostnet/1.3": ([1], [2], [3], [4, 5], [6, 7], [8, 9]),
    "shufflenetv2/1.5": ([], [(1, 0, 1)], [(1, 1, 2)], [(1, 2, None)], [2], [3]),
    "resnet/50": ([], [(1, 0, 1)], [(1, 1, None)], [2], [3], [4]),
    "convnext/tiny": ([], [(1, 0, 1)], [(1, 1, None)], [2], [3], [4]),
    "swin/tiny": ([], [(1, 0, 1)], [(1, 1, None)], [2], [3], [4]),
    "vit/tiny": ([], [(1, 0, 1)], [(1, 1, 2)], [(1, 2, 4)], [(1, 4, 8)], [(1, 8, None)]),
    "lightcnn/29": ([], [1], [2], [3], [4], [5]),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_of_a_family(name):
    arch = models.architecture(name)
    expected = [
        [piece if isinstance(piece, tuple) else (piece, 0, None) for piece in pieces]
        for pieces in BLOCKS[name]
    ]
    assert [stage_slices(number, arch) for number in range(1, 7)] == expected


@pytest.mark.parametrize("name", [*models.variants(), "resnet/18@d0.1", "efficientnet/b0@d0.1"])
def test_blocks_contain_every_layer_once(name):
    arch, positions = models.architecture(name), []
    for number in range(1, 7):
        for stage, first, last in stage_slices(number, arch):
            blocks = range(len(arch.stages[stage - 1]))[first:last]
            positions += [(stage, block) for block in blocks]
            positions += [(stage, "norm")] * (last is None)
            for block in blocks:
                for prefix in ("", "infrared/"):
                    assert block_of(f"{prefix}stage{stage}/block{block}/a", arch) == number
            if last is None:
                assert block_of(f"stage{stage}/norm/scale", arch) == number
    assert positions == [
        (stage, block)
        for stage, blocks in enumerate(arch.stages, start=1)
        for block in (*range(len(blocks)), "norm")
    ]
    assert block_of("infrared/stem/kernel", arch) == 1
    assert block_of("head/kernel", arch) == 7


def test_parameters_of_the_blocks_of_mobilenetv3(shapes):
    arch, counts = models.architecture("mobilenetv3/large"), dict.fromkeys(range(1, 8), 0)
    params, _ = shapes("mobilenetv3/large")
    for path, leaf in params.items():
        counts[block_of(path, arch)] += math.prod(leaf.shape)
    head = 155_520 + 1_230_080 + 1_281_000
    assert [*counts.values()] == [928, 3_440, 4_440, 52_312, 731_368, 2_023_944, head]


@pytest.mark.parametrize(
    ("path_blocks", "parameters"), [(0, 2_971_952), (1, 2_972_880), (4, 3_033_072)]
)
def test_parameters_of_two_paths(path_blocks, parameters):
    """TOPLight's networks without hidden layer and classifier."""
    model = models.build("mobilenetv3/large", 0, path_blocks=path_blocks, hidden=False)
    params, _ = jax.eval_shape(lambda: models.init(model, 0, (1, 64, 64, 3)))
    assert flops.count_parameters(params) == parameters
    vector, _ = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), jnp.ones((2, 64, 64, 3)), train=False)
    )[0]
    assert vector.shape == (2, 960)


def test_multiply_adds_count_one_path():
    counts = {
        flops.count_multiply_adds(models.build("mobilenetv3/s-6", path_blocks=k), (1, 64, 64, 1))
        for k in (0, 4)
    }
    assert len(counts) == 1


# ---- values


def random_variables(model, shape, seed):
    params, stats = models.init(model, seed, shape)
    rng = np.random.default_rng(seed)
    params = {p: rng.normal(size=x.shape) * 0.1 + np.asarray(x) for p, x in params.items()}
    stats = {p: rng.uniform(0.5, 1.5, x.shape) for p, x in stats.items()}
    return params, stats


def split_paths(arrays):
    """The arrays of a network with two paths as those of two networks with one path."""
    visible = {p: x for p, x in arrays.items() if not p.startswith("infrared/")}
    copies = {
        p.removeprefix("infrared/"): x for p, x in arrays.items() if p.startswith("infrared/")
    }
    return visible, visible | copies


def forward(model, params, stats, x, train, **options):
    """`models.apply` of `Backbone.forward` with keyword arguments."""
    variables = {"params": unflatten_dict(params, sep="/"), "stats": unflatten_dict(stats, sep="/")}
    options = {"mutable": ["stats"], "method": "forward", **options}
    outputs, updated = model.apply(variables, x, train, **options)
    return outputs, flatten_dict(updated.get("stats", {}), sep="/")


def run_two_networks(single, path_blocks, params, stats, x):
    """What a network with two paths computes in training, with networks of one path.

    Each of two networks computes its half up to block `path_blocks`; the first one computes the
    rest on the joined outputs. Returns (vector, outputs of blocks, running statistics).
    """
    apply = partial(forward, single, train=True)
    outputs, ends = [], []
    for p, s, rows in zip(*map(split_paths, (params, stats)), jnp.split(x, 2), strict=True):
        # The output itself, which in vit is no map.
        after = {path_blocks: lambda y: ends.append(y) or y}
        outputs.append(apply(p, s, rows, after=after))
    visible, infrared = (out.blocks for out, _ in outputs)
    after = {path_blocks: lambda y: jnp.concatenate(ends)}
    shared, shared_stats = apply(split_paths(params)[0], split_paths(stats)[0], x, after=after)
    blocks = {
        k: shared.blocks[k] if k > path_blocks else jnp.concatenate([visible[k], infrared[k]])
        for k in range(1, 7)
    }
    updated = {}
    for path in stats:
        plain = path.removeprefix("infrared/")
        doubled = outputs[plain != path][1]
        is_doubled = block_of(plain, single.arch) <= path_blocks
        updated[path] = (doubled if is_doubled else shared_stats)[plain]
    return shared.vector, blocks, updated


@pytest.mark.parametrize(
    ("name", "path_blocks"),
    [
        (TINY, 4),
        *(
            pytest.param(name, k, marks=pytest.mark.slow)
            for name, k in (
                (TINY_SHUFFLENETV2, 2),  # ends within a stage
                (TINY, 1), ("efficientnet/b-7", 2), (TINY_GHOSTNET, 4), (MICRO_CONVNEXT, 4),
                ("resnet/18@w0.125", 3), (MICRO_SWIN, 2), (MICRO_VIT, 2), (MICRO_VIT, 6),
                (MICRO_LIGHTCNN, 1), (MICRO_LIGHTCNN, 2),
            )
        ),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_two_paths_train_as_two_networks_that_are_joined(name, path_blocks):
    """In float64: outputs, running statistics and gradients."""
    with jax.enable_x64(True):
        single = models.build(name, 3, jnp.float64)
        dual = models.build(name, 3, jnp.float64, path_blocks=path_blocks)
        shape = (4, 32, 48, 1)
        params, stats = random_variables(dual, shape, 0)
        x = jnp.asarray(np.random.default_rng(1).normal(size=shape))
        weights = np.random.default_rng(2).normal(size=(4, 3))

        def one_network(params):
            out, updated = forward(dual, params, stats, x, train=True)
            return (weights * out.vector).sum(), (out.vector, out.blocks, updated)

        def two_networks(params):
            outputs = run_two_networks(single, path_blocks, params, stats, x)
            return (weights * outputs[0]).sum(), outputs

        (gradient, outputs), (expected_gradient, expected) = (
            quick_jit(jax.grad(f, has_aux=True))(params) for f in (one_network, two_networks)
        )
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-10), outputs, expected)
        scale = max(np.abs(g).max() for g in expected_gradient.values())
        for path, g in expected_gradient.items():
            np.testing.assert_allclose(gradient[path], g, rtol=1e-7, atol=1e-10 * scale)
        copies = [path for path in gradient if path.startswith("infrared/")]
        assert copies
        assert all(np.abs(gradient[path]).max() > 0 for path in copies)


def test_prediction_selects_the_path_of_each_image():
    with jax.enable_x64(True):
        single = models.build(TINY_SHUFFLENETV2, 3, jnp.float64)
        dual = models.build(TINY_SHUFFLENETV2, 3, jnp.float64, path_blocks=4)
        shape, modality = (4, 32, 32, 1), np.array([1, 0, 0, 1], np.uint8)
        params, stats = random_variables(dual, shape, 0)
        x = np.random.default_rng(1).normal(size=shape)
        predict = quick_jit(partial(forward, train=False), static_argnums=0)
        out, _ = predict(dual, params, stats, x, modality=modality)
        paths = [
            predict(single, p, s, x)[0]
            for p, s in zip(split_paths(params), split_paths(stats), strict=True)
        ]
        for i, path in enumerate(modality):
            expected = jax.tree.map(lambda y, i=i: y[i], paths[path])
            row = jax.tree.map(lambda y, i=i: y[i], out)
            jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9), row, expected)
        # Equal copies are one path.
        visible, visible_stats = (split_paths(tree)[0] for tree in (params, stats))
        equal, equal_stats = (
            {path: visible[path.removeprefix("infrared/")] for path in tree}
            for tree, visible in ((params, visible), (stats, visible_stats))
        )
        out, _ = predict(dual, equal, equal_stats, x, modality=modality)
        np.testing.assert_allclose(out.vector, paths[0].vector, rtol=1e-12)


def test_batch_spread_over_devices():
    """Each device has rows of both halves; BatchNorm statistics are those of the whole batch."""
    with jax.enable_x64(True):
        model = models.build(TINY_SHUFFLENETV2, 3, jnp.float64, path_blocks=2)
        shape = (8, 32, 32, 1)
        params, stats = random_variables(model, shape, 0)
        x = np.random.default_rng(1).normal(size=shape)
        apply = partial(models.apply, model, params, stats, train=True)
        (logits, _), updated = quick_jit(apply)(x)
        shards = x.reshape(2, 2, 2, *shape[1:]).swapaxes(0, 1).reshape(2, 4, *shape[1:])
        spread = jax.vmap(partial(apply, axes=("data",)), axis_name="data")
        (shard_logits, _), shard_updated = quick_jit(spread)(shards)
        expected = np.asarray(logits).reshape(2, 2, 2, 3).swapaxes(0, 1).reshape(2, 4, 3)
        np.testing.assert_allclose(shard_logits, expected, rtol=1e-8)
        for path, leaf in updated.items():
            np.testing.assert_allclose(shard_updated[path][1], leaf, rtol=1e-9, atol=1e-12)


# ---- architectures


def test_gates_of_both_copies():
    archs = [models.architecture(f"efficientnet/{name}", path_blocks=4) for name in ("b-1", "b-3")]
    supernet = merge_architectures(archs)
    gates = gate_values(archs[1], supernet)
    visible = {path: gate for path, gate in gates.items() if not path.startswith("infrared/")}
    copies = {path.removeprefix("infrared/"): g for path, g in gates.items() if path not in visible}
    assert copies == {p: g for p, g in visible.items() if block_of(p, supernet) <= 4}
    assert 0 < len(copies) < len(visible)
    model = models.build("efficientnet/b-1", supernet=supernet)
    params, _ = jax.eval_shape(lambda: models.init(model, 0, (1, 32, 32, 1)))
    assert gates.keys() == {p for p in params if p.endswith(("skip", "alive", "expands"))}


def test_networks_that_double_other_blocks_cannot_share_a_program():
    archs = [models.architecture("mobilenetv3/small", path_blocks=k) for k in (1, 4)]
    with pytest.raises(ValueError, match="differ in doubled blocks"):
        merge_architectures(archs)


@pytest.mark.parametrize(
    ("name", "multiply_adds"),
    [
        ("shufflenetv2/1.0", 230.2),
        ("ghostnet/1.0", 221.8),
        ("mobilenetv3/large", 291.5),
        pytest.param("mobilenetv3/small", 86.8, marks=pytest.mark.slow),
        pytest.param("ghostnet/1.3", 364.4, marks=pytest.mark.slow),
        pytest.param("resnet/50", 5130, marks=pytest.mark.slow),
    ],
)
def test_last_stride_of_1(name, multiply_adds):
    """Millions of multiply-adds of torch's networks, measured with the last stride set to 1."""
    models_by_stride = {
        stride: models.build(name, 0, last_stride=stride, hidden=False) for stride in (1, 2)
    }
    count = flops.count_multiply_adds(models_by_stride[1], (1, 288, 144, 3)) / 1e6
    assert count == pytest.approx(multiply_adds, rel=5e-4)
    shapes = [
        jax.eval_shape(partial(models.init, model, 0, (1, 32, 32, 3)))
        for model in models_by_stride.values()
    ]
    assert shapes[0] == shapes[1]
    assert models_by_stride[1].arch.strides[-1] == 16


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet/50", {"path_blocks": 7}, "path_blocks = 7: give 0 to 6"),
        ("resnet/50", {"last_stride": 4}, "last_stride = 4: give 1 or 2"),
        ("swin/tiny", {"last_stride": 1}, "last_stride = 1: .* swin/tiny .* give 2"),
        ("vit/tiny", {"last_stride": 1}, "last_stride = 1: .* vit/tiny .* give 2"),
    ],
)
def test_invalid_options(name, options, message):
    with pytest.raises(UserError, match=message):
        models.architecture(name, **options)


def test_hidden_layer_is_optional_where_a_convolution_precedes_pooling():
    assert models.architecture("ghostnet/1.3", hidden=False).hidden == 0
    assert models.architecture("lightcnn/29", hidden=False).hidden == 256
