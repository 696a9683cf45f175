"""The network of recognition: outputs, initial values, counts, zero padding, errors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from tests.population.test_pad import shapes_of, small_backbone
from tests.tiny_backbones import MICRO_LIGHTCNN, MICRO_VIT, TINY
from tinyjax import models, step
from tinyjax.core import ModelFunctions, Variables
from tinyjax.errors import UserError
from tinyjax.models import flops
from tinyjax.models.supernet import gate_values, merge_architectures
from tinyjax.population.pad import check_zero_padding, pad, unpad
from tinyjax.recognition.fdr import FdrConfig
from tinyjax.recognition.network import build
from tinyjax.recognition.pooling import POOLINGS

quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def initialize(model, channels=1, size=(32, 32)):
    return models.init(model, 0, (1, *size, channels), (1,))


def test_parameters_of_mobilenetv3_with_two_stems():
    backbone = models.build("mobilenetv3/large", 0, path_blocks=1, hidden=False)
    params, stats = jax.eval_shape(lambda: initialize(build(backbone, 395), 3))
    # BNNeck has a scale only, the classifier no bias.
    assert flops.count_parameters(params) == 2_972_880 + 960 + 960 * 395
    assert params["neck_bn/scale"].shape == stats["neck_bn/mean"].shape == (960,)
    assert "neck_bn/bias" not in params
    assert params["classifier/kernel"].shape == (960, 395)


@pytest.mark.parametrize(
    ("name", "options", "features", "shallow"),
    [
        (TINY, {}, 24, (4, 4, 4, 8)),
        (TINY, {"hidden": True}, 16, (4, 4, 4, 8)),
        (TINY, {"last_stride": 1}, 24, (4, 4, 4, 8)),
        (MICRO_LIGHTCNN, {}, 3, (4, 8, 8, 6)),
        (MICRO_VIT, {}, 16, (4, 2, 2, 16)),
        ("lightcnn/29v2", {}, 256, (4, 4, 4, 128)),
    ],
)
def test_outputs(name, options, features, shallow):
    options = {"path_blocks": 4, "hidden": False, **options}
    model = build(models.build(name, 0, jnp.bfloat16, **options), 5)
    params, stats = jax.eval_shape(lambda: initialize(model))
    apply = partial(models.apply, model)
    images, modality = jnp.ones((4, 32, 32, 1)), jnp.zeros(4, jnp.uint8)
    training, updated = jax.eval_shape(
        lambda p, s: apply(p, s, images, None, train=True), params, stats
    )
    prediction, _ = jax.eval_shape(
        lambda p, s: apply(p, s, images, modality, train=False), params, stats
    )
    assert training == prediction
    shapes = {key: (array.shape, array.dtype) for key, array in training.items()}
    assert shapes == {
        "pooled": ((4, features), jnp.float32),
        "embedding": ((4, features), jnp.float32),
        "logits": ((4, 5), jnp.float32),
        "shallow": (shallow, jnp.bfloat16),
    }
    assert updated.keys() == stats.keys()


def test_values():
    """Outputs follow from the pooled feature, and block 4's is the shallow one. FDR starts as the
    identity, and changes the blocks after its own.
    """
    plain = build(models.build(TINY, 0, path_blocks=1, hidden=False), 300)
    with_fdr = build(plain.backbone, 300, FdrConfig(groups=1), fdr_block=2)
    params, stats = initialize(with_fdr)
    params["neck_bn/scale"] = jnp.arange(24.0)
    stats["neck_bn/mean"] = jnp.full(24, 0.5)
    changed = {**params, "fdr/project/kernel": params["fdr/project/kernel"] + 1}
    x = np.random.default_rng(0).normal(size=(4, 32, 32, 1)).astype(np.float32)
    modality = np.array([0, 1, 1, 0])

    def run(model, params):
        trees = [unflatten_dict(tree, sep="/") for tree in (params, stats)]
        variables = dict(zip(("params", "stats"), trees, strict=True))
        return model.apply(variables, x, modality, train=False)

    def run_backbone():
        trees = [unflatten_dict(tree, sep="/")["backbone"] for tree in (params, stats)]
        variables = dict(zip(("params", "stats"), trees, strict=True))
        return plain.backbone.apply(variables, x, False, modality, method="forward")

    out, initial, after, backbone = quick_jit(
        lambda: (run(plain, params), run(with_fdr, params), run(with_fdr, changed), run_backbone())
    )()
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-7)
    jax.tree.map(close, initial, out)
    assert np.abs(after["shallow"] - out["shallow"]).max() > 0.01 * np.abs(out["shallow"]).max()
    close(out["shallow"], backbone.blocks[4])
    close(out["pooled"], backbone.vector)
    embedding = np.arange(24) * (np.asarray(out["pooled"]) - 0.5) / np.sqrt(1 + 1e-5)
    close(out["embedding"], embedding)
    kernel = np.asarray(params["classifier/kernel"])
    close(out["logits"], embedding @ kernel)
    assert 0.0009 < kernel.std() < 0.0011


# ---- zero padding

STEPS, SIDE, IDENTITIES = 5, 32, 3
# The second network is wider and has one block more in stage 2, which both have twice.
WIDTHS = (
    small_backbone(8, (8, 8, 8, 8, 16), (1, 1, 1, 1, 1), 8, "hard_swish", 2, 16),
    small_backbone(8, (8, 16, 16, 16, 16), (1, 2, 1, 1, 1), 12, "hard_swish", 2, 24),
)


def training_functions(architecture, pooling):
    backbone = models.build(
        "mobilenetv3/s-1", 0, jnp.float64, supernet=architecture, pooling=POOLINGS[pooling]
    )
    model = build(backbone, IDENTITIES)

    def init(seed):
        trees = initialize(model, size=(SIDE, SIDE))
        return Variables(*jax.tree.map(lambda leaf: leaf.astype(jnp.float64), trees))

    def loss(variables, frozen_batchnorm, batch, key, hyper):
        out, stats = models.apply(model, *variables, batch["image"], None, train=True)
        visible, infrared = jnp.split(out["pooled"], 2)
        value = -(batch["targets"] * jax.nn.log_softmax(50 * out["logits"])).mean()
        # The shallow feature enters by a sum, so that its padding does not count.
        return value + ((visible - infrared) ** 2).sum() + (out["shallow"] ** 2).mean(
            (0, 1, 2)
        ).sum(), (stats, {})

    return model, ModelFunctions(init, loss, lambda *_: {})


def train(functions, variables, gates):
    # Not AdamW: where a gradient is 0 in theory, it divides rounding errors by 1e-8.
    tx = step.make_optimizer("sgd", 0.9, 0.999, 1.0)
    paths = [path for tree in variables for path in tree]
    trainable = step.select_trainable({path: float(path not in gates) for path in paths})
    state = step.init_state(variables, tx, trainable)
    train_step = jax.jit(step.make_step(functions, tx, lambda step: 1.0, trainable))
    hyper = {"seed": 0, "weight_decay": 0.05, "ema": 0.9, "lr": 0.01}
    batch, losses = (
        {
            "image": jnp.asarray(np.random.default_rng(0).normal(size=(4, SIDE, SIDE, 1))),
            "targets": jax.nn.one_hot(jnp.array([0, 1, 0, 1]), IDENTITIES, dtype=jnp.float64),
        },
        [],
    )
    for _ in range(STEPS):
        state, metrics = train_step(state, batch, hyper)
        losses.append(float(metrics["loss"]))
    return state.variables(state.weights), losses


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["gem", "mean"])
def test_padded_network_trains_as_alone(pooling):
    narrow, wide = (
        a._replace(path_blocks=3, block_starts=((2, 0), (2, 1), (3, 0), (4, 0), (5, 0)))
        for a in WIDTHS
    )
    merged = merge_architectures([narrow, wide])
    with jax.enable_x64(True):
        _, functions = training_functions(narrow, pooling)
        model, merged_functions = training_functions(merged, pooling)
        check_zero_padding(model, (1, SIDE, SIDE, 1), (1,))
        unpadded = functions.init(0)
        params, stats = map(shapes_of, jax.eval_shape(merged_functions.init, 0))
        gates = {f"backbone/{p}": np.float64(v) for p, v in gate_values(narrow, merged).items()}
        assert gates["backbone/infrared/stage2/block1/alive"] == 0
        padded = Variables(pad(unpadded.params | gates, params), pad(unpadded.stats, stats))
        alone, losses = train(functions, unpadded, {})
        together, padded_losses = train(merged_functions, padded, gates)
    np.testing.assert_allclose(padded_losses, losses, rtol=1e-9)
    assert losses[-1] < losses[0]
    for tree, padded_tree in zip(alone, together, strict=True):
        for path, leaf in unpad(padded_tree, shapes_of(tree)).items():
            np.testing.assert_allclose(leaf, tree[path], rtol=1e-8, atol=1e-10)
        padded_again = pad(unpad(padded_tree, shapes_of(tree)), shapes_of(padded_tree))
        for path in padded_tree.keys() - gates.keys():
            np.testing.assert_array_equal(padded_tree[path], padded_again[path])


def test_networks_with_fdr_cannot_be_padded():
    model = build(models.build(TINY, 0, path_blocks=1), 3, FdrConfig(groups=1))
    with pytest.raises(UserError, match=r"fdr.* is not known to keep zero channels zero"):
        check_zero_padding(model, (1, 32, 32, 1), (1,))


# ---- errors


@pytest.mark.parametrize(
    ("name", "pooling", "settings", "message"),
    [
        (MICRO_VIT, "gem", {}, "pooling: this backbone has no pooling .* give 'mean'"),
        (MICRO_LIGHTCNN, "gem", {}, "pooling: this backbone has no pooling .* give 'mean'"),
        (MICRO_VIT, "mean", {"fdr": FdrConfig()}, "fdr.block: the blocks of vit have tokens"),
        (TINY, "mean", {"fdr": FdrConfig(), "fdr_block": 4}, "fdr.block = 4: .* from 5 to 6"),
        (TINY, "mean", {"fdr": FdrConfig(), "fdr_block": 7}, "fdr.block = 7: .* from 5 to 6"),
    ],
)
def test_invalid_settings(name, pooling, settings, message):
    backbone = models.build(name, 0, path_blocks=4, pooling=POOLINGS[pooling])
    with pytest.raises(UserError, match=message):
        build(backbone, 3, **settings)


def test_training_batch_has_equal_halves_and_no_modality():
    model = build(models.build(TINY, 0, path_blocks=1), 3)
    for rows, modality in ((3, None), (2, jnp.zeros(2))):
        with pytest.raises(ValueError, match="equal halves"):
            jax.eval_shape(
                lambda rows=rows, modality=modality: model.init_with_output(
                    jax.random.key(0), jnp.ones((rows, 32, 32, 1)), modality, train=True
                )
            )
