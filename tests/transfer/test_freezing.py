"""Rules, presets, other libraries' numbers; frozen parameters do not change and cost nothing."""

from functools import cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.configs import detector as tiny_config
from tinyjax import models, tasks
from tinyjax import step as steps
from tinyjax.config import detector
from tinyjax.core import ModelFunctions, Variables
from tinyjax.data.synthetic import dataset
from tinyjax.detectors.point import PointDetector
from tinyjax.errors import UserError
from tinyjax.models.layers import ConvBN, Dense
from tinyjax.population.stack import hyper_arrays
from tinyjax.tasks import classify, detect
from tinyjax.transfer import freezing

BATCHNORM_ARRAYS = ("scale", "bias", "mean", "var")


@cache
def paths_of(task=detect, backbone="mobilenetv3/s-6", name="point"):
    config = detector(name)
    config.model.backbone = backbone
    model = task.build(config, 3)
    trees = jax.eval_shape(lambda: models.init(model, 0, (1, 64, 64, 1)))
    return tuple(path for tree in trees for path in tree)


def frozen(*rules, paths=None):
    paths = paths or paths_of()
    multipliers = freezing.freeze_multipliers(paths, rules)
    return {path for path, multiplier in multipliers.items() if multiplier == 0}


def with_prefix(*prefixes, paths=None):
    return {path for path in paths or paths_of() if path.startswith(prefixes)}


def test_presets_freeze_the_modules_they_name():
    all_paths = {*paths_of()}
    assert frozen() == set()
    assert frozen("backbone") == with_prefix("backbone/") != set()
    assert frozen("stem") == with_prefix("backbone/stem/")
    assert frozen("stage<=2") == with_prefix("backbone/stem/", "backbone/stage1", "backbone/stage2")
    assert frozen("all but head") == all_paths - with_prefix("head/")
    assert frozen("batchnorm") == {p for p in all_paths if p.endswith(BATCHNORM_ARRAYS)} - {
        p for p in all_paths if p.endswith("/bias") and ("/se/" in p or "_out/" in p)
    }
    assert frozen("stem", "batchnorm") == frozen("stem") | frozen("batchnorm")


@pytest.mark.parametrize(
    ("name", "heads", "num_class_layers"),
    [
        ("point", ("head/",), 1),
        ("retinanet", ("head/",), 2),  # one per number of anchors
        ("faster_rcnn", ("rpn/", "box_head1/"), 1),
        ("cascade_rcnn", ("rpn/", "box_head1/", "box_head2/", "box_head3/"), 3),
    ],
)
def test_presets_of_heads(name, heads, num_class_layers):
    paths = paths_of(name=name)
    trained = {*paths} - frozen("all but head", paths=paths)
    assert trained == with_prefix(*heads, paths=paths)
    assert {path.split("/")[0] + "/" for path in trained} == {*heads}
    trained = {*paths} - frozen("all but last layer", paths=paths)
    assert trained == {path for path in paths if "/class_out/" in path}
    assert len(trained) == 2 * num_class_layers


def test_presets_of_a_classifier():
    paths = paths_of(classify)
    classifier = with_prefix("backbone/classifier/", paths=paths)
    assert len(classifier) == 2
    assert frozen("all but head", paths=paths) == {*paths} - classifier
    assert frozen("all but last layer", paths=paths) == {*paths} - classifier
    after_stages = with_prefix("backbone/head/", "backbone/hidden/", paths=paths)
    assert frozen("backbone", paths=paths) == {*paths} - classifier - after_stages


def test_first_matching_rule_applies():
    multipliers = freezing.freeze_multipliers(
        paths_of(),
        (("backbone/stem/bn/.*", 0.5), "stem", (r"neck/.*", 2), (".*", 0.1)),
    )
    assert multipliers["backbone/stem/bn/scale"] == 0.5
    assert multipliers["backbone/stem/kernel"] == 0
    assert multipliers["neck/lateral32/kernel"] == 2
    assert multipliers["head/class_out/kernel"] == 0.1


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (("backbones",), r"freeze: 'backbones': did you mean 'backbone'"),
        (("stage<=0",), r"'stage<=0'.*known: .*stage<=1"),
        ((("backbone/.*", 0),), r"no rule matches head/.*end with \('\.\*', 1\)"),
        ((("backbone/stem", 0), (".*", 1)), "'backbone/stem' matches no path.*such as backbone/st"),
        ((("(", 0), (".*", 1)), r"\('\(', 0\): give a preset, or \(regular expression, multiplier"),
        ((("stem", 0, 1),), r"\('stem', 0, 1\): give a preset"),
        (((".*", -1),), "give a multiplier of 0 or more"),
        (((".*", float("nan")),), "give a multiplier of 0 or more"),
        (((".*", "no"),), "give a preset"),
        (("stage<=6",), "'stage<=6': this backbone has 5 stages"),
        (
            ((".*", 1), ("backbone/.*", 0)),
            r"'backbone/\.\*' never applies: the rules before it match all.*put it before them",
        ),
        (
            (("backbone/stem/.*", 0), ("backbone/.*", 1), ("backbone/stem/.*", 0.5), (".*", 1)),
            r"'backbone/stem/\.\*' never applies: the rules before it",
        ),
        (
            ((".*/var", 0), (".*", 1)),
            "freeze: .*/bn: only one of mean and var is .* both or neither",
        ),
        (
            ((".*/mean", 0), (".*", 1)),
            "freeze: .*/bn: only one of mean and var is .* both or neither",
        ),
    ],
)
def test_invalid_rules_are_rejected(rules, message):
    with pytest.raises(UserError, match=message):
        freezing.freeze_multipliers(paths_of(), rules)


def test_redundant_rule_that_changes_nothing_is_accepted():
    assert frozen("stage<=2", "stem") == frozen("stage<=2")
    assert frozen(("backbone/.*", 0), ("(neck|head)/.*", 1), (".*", 1)) == frozen("backbone")


@pytest.mark.parametrize(
    ("rules", "backbone_lr_scale"),
    [(((".*(mean|var)", 1), (".*", 0)), 1.0), ((("backbone/.*", 1), (".*", 0)), 0.0)],
)
def test_nothing_left_to_train_is_rejected(rules, backbone_lr_scale):
    config = detector()
    config.freeze, config.optimizer.backbone_lr_scale = rules, backbone_lr_scale
    with pytest.raises(UserError, match="nothing is left to train"):
        freezing.lr_multipliers(paths_of(), config)


def test_backbone_lr_scale_and_layer_decay():
    """By hand: S-6 has 11 blocks; its last block is layer 11 of 12, the stem layer 0."""
    config = detector()
    config.optimizer.backbone_lr_scale, config.optimizer.layer_decay = 0.5, 0.9
    config.freeze = ("stem",)
    multipliers = freezing.lr_multipliers(paths_of(), config)
    blocks = sorted(
        {p.split("/block")[0] + p.split("/block")[1][:1] for p in multipliers if "/block" in p}
    )
    assert len(blocks) == 11
    assert multipliers["backbone/stem/kernel"] == 0
    assert multipliers["head/class_out/kernel"] == multipliers["neck/lateral32/bn/scale"] == 1
    assert multipliers["backbone/stage1/block0/project/kernel"] == pytest.approx(0.5 * 0.9**11)
    assert multipliers["backbone/stage5/block2/project/kernel"] == pytest.approx(0.5 * 0.9)


@pytest.mark.parametrize(
    ("backbone", "presets"),
    [
        ("mobilenetv3/s-6", ("stage<=1", "stage<=2", "stage<=4", "stage<=5")),
        ("efficientnet/b-7", ("stage<=2", "stage<=3", "stage<=5", "stage<=7")),
        # Its features at stride 4 are those of the stem.
        ("shufflenetv2/n-5", ("stem", "stage<=1", "stage<=2", "stage<=3")),
        ("ghostnet/g-7", ("stage<=3", "stage<=5", "stage<=7", "stage<=9")),
    ],
)
def test_presets_for_numbers_of_other_libraries(backbone, presets):
    """Detectron2's FREEZE_AT 2 = mmdetection's frozen_stages 1 = torchvision's 3 trainable layers:
    stem and the stage at stride 4.
    """
    arch = models.architecture(backbone)
    expected = [(), ("stem",), *((preset,) for preset in presets)]
    for number, preset in enumerate(expected):
        assert freezing.preset_for("detectron2", number, arch) == preset
        assert freezing.preset_for("mmdetection", number - 1, arch) == preset
        assert freezing.preset_for("torchvision", 5 - number, arch) == preset
    with pytest.raises(UserError, match="mmdet"):
        freezing.preset_for("mmdet", 1, arch)
    with pytest.raises(UserError, match="detectron2: 6 is not a valid number"):
        freezing.preset_for("detectron2", 6, arch)


def test_description_of_what_trains():
    multipliers = {"backbone/stem/kernel": 0.0, "head/a": 1.0, "head/b": 0.5, "head/c": 0.0}
    text = freezing.describe(
        multipliers, {"backbone/stem/kernel": 1200, "head/a": 10, "head/b": 5, "head/c": 1}
    )
    assert text.splitlines() == [
        "  backbone/stem         1,200 frozen",
        "  head                  10 train, 5 train at 0.5 of the learning rate, 1 frozen",
    ]


class Toy(nn.Module):
    """Two convolutions with BatchNorm and a linear layer."""

    @nn.compact
    def __call__(self, x, train):
        x = ConvBN(4, 3, act="relu", name="stem")(x, train)
        x = ConvBN(4, 3, 2, act="relu", name="body")(x, train)
        return Dense(2, name="out")(x.mean((1, 2)))


def toy_functions(model, shape=(1, 8, 8, 1)):
    def init(seed):
        trees = models.init(model, seed, shape)
        # float64 where it is enabled
        return Variables(*jax.tree.map(lambda leaf: leaf.astype(jnp.result_type(float)), trees))

    def loss(variables, frozen_batchnorm, batch, key, hyper):
        x, y = batch
        out, stats = models.apply(
            model, *variables, x, train=True, frozen_batchnorm=frozen_batchnorm
        )
        return ((out - y) ** 2).mean(), (stats, {})

    return ModelFunctions(init, loss, lambda *_: {})


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_freezing_by_array_equals_freezing_by_structure(name):
    """In float64, 20 steps with decay, clipping and EMA give the same weights; frozen parameters
    and running statistics stay bit-identical.
    """
    with jax.enable_x64(True):
        functions = toy_functions(Toy())
        tx = steps.make_optimizer(name, 0.9, 0.999, 0.5)
        variables = functions.init(0)
        multipliers = freezing.freeze_multipliers(
            [*variables.params, *variables.stats],
            (("stem/.*", 0), ("body/bn/(mean|var)", 0), ("out/.*", 0.3), (".*", 1)),
        )
        hyper = {"seed": 0, "lr": 0.05, "weight_decay": 0.1, "ema": 0.9}
        scaled = {path: m for path, m in multipliers.items() if m not in (0, 1)}
        assert set(scaled.values()) == {0.3}
        arrays = {path: jnp.asarray(m) for path, m in multipliers.items()}
        methods = {
            "structure": (steps.select_trainable(multipliers), {**hyper, "multiplier": scaled}),
            "array": (None, {**hyper, "multiplier": arrays}),
            "none": (None, hyper),
        }
        rng = np.random.default_rng(0)
        batches = [(rng.normal(size=(4, 8, 8, 1)), rng.normal(size=(4, 2))) for _ in range(20)]
        states, metrics = {}, {}
        for method, (trainable, values) in methods.items():
            state = steps.init_state(variables, tx, trainable)
            step = jax.jit(steps.make_step(functions, tx, lambda step: 1.0, trainable))
            for batch in batches:
                state, metrics[method] = step(state, batch, values)
            states[method] = state
        norms = {method: float(values["gradient_norm"]) for method, values in metrics.items()}
        assert norms["structure"] == pytest.approx(norms["array"], rel=1e-12)
        by_structure, by_array = states["structure"], states["array"]
        start = {**variables.params, **variables.stats}
        for weights_of in (lambda s: s.weights, lambda s: s.ema):
            a, b = (
                {**v.params, **v.stats}
                for v in (s.variables(weights_of(s)) for s in (by_structure, by_array))
            )
            for path in start:
                np.testing.assert_allclose(a[path], b[path], rtol=1e-10, atol=1e-13)
                if multipliers[path] == 0:
                    np.testing.assert_array_equal(a[path], start[path])
                    np.testing.assert_array_equal(b[path], start[path])
                else:
                    assert np.abs(a[path] - start[path]).max() > 1e-4
        trained, frozen = (
            s.variables(s.weights).params["stem/kernel"] for s in (states["none"], by_structure)
        )
        assert np.abs(trained - frozen).max() > 1e-3
        size = sum(leaf.size for path, leaf in variables.params.items() if multipliers[path] > 0)
        optimizer_arrays = [a for a in jax.tree.leaves(by_structure.opt_state) if a.ndim]
        assert {array.size for array in optimizer_arrays} == {size}


class ToyAfterStem(nn.Module):
    """The layers of `Toy` after its stem, with the same names."""

    @nn.compact
    def __call__(self, x, train):
        x = ConvBN(4, 3, 2, act="relu", name="body")(x, train)
        return Dense(2, name="out")(x.mean((1, 2)))


def test_frozen_stem_costs_its_forward_pass_only():
    """The FLOPs of the step, gradient norm included, are at most 1.05 times those of the stem's
    forward pass and of a step of the other layers.
    """
    tx = steps.make_optimizer("adamw", 0.9, 0.999, 10.0)
    hyper = {"seed": 0, "lr": 0.05, "weight_decay": 0.1, "ema": 0.9}
    x, y = jnp.zeros((4, 8, 8, 1)), jnp.zeros((4, 2))
    stem = ConvBN(4, 3, act="relu")

    def step_flops(model, x, rules=((".*", 1),)):
        functions = toy_functions(model, x.shape)
        variables = functions.init(0)
        multipliers = freezing.freeze_multipliers([*variables.params, *variables.stats], rules)
        trainable = steps.select_trainable(multipliers)
        step = steps.make_step(functions, tx, lambda step: 1.0, trainable)
        return count_flops(step, steps.init_state(variables, tx, trainable), (x, y), hyper)

    def forward(x):
        return models.apply(stem, *models.init(stem, 0, x.shape), x, train=False)[0]

    frozen_flops = step_flops(Toy(), x, (("stem/.*", 0), (".*", 1)))
    after_stem_flops = step_flops(ToyAfterStem(), forward(x))
    assert after_stem_flops < frozen_flops
    assert frozen_flops <= 1.05 * (count_flops(forward, x) + after_stem_flops)
    assert step_flops(Toy(), x) > 1.2 * frozen_flops


class FixedFeatures(nn.Module):
    """A backbone with constant outputs. It reads x, so that augmentation stays in the step."""

    features: dict

    @nn.compact
    def __call__(self, x, train):
        return None, {stride: f + 0 * x.sum() for stride, f in self.features.items()}


def count_flops(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


@pytest.mark.slow
def test_frozen_backbone_costs_its_forward_pass_only():
    """The FLOPs of the step, gradient norm included, are at most 1.05 times those of the backbone's
    forward pass and of a step of neck and head on fixed features.
    """
    config = tiny_config.get_config()
    split = dataset.load(4, (64, 64), seed=3)
    batch, hyper = detect.device_arrays(split), hyper_arrays(config)
    inputs = {"image": (64, 64, 1)}
    tx = steps.make_optimizer("adamw", 0.9, 0.999, 10.0)
    functions = detect.model_functions(config, split.classes, inputs)
    variables = functions.init(0)

    def step_flops(functions, variables, trainable=None):
        step = steps.make_step(functions, tx, lambda step: 1.0, trainable)
        return count_flops(step, steps.init_state(variables, tx, trainable), batch, hyper)

    multipliers = freezing.freeze_multipliers([*variables.params, *variables.stats], ("backbone",))
    frozen_flops = step_flops(functions, variables, steps.select_trainable(multipliers))

    backbone = tasks.build_backbone(config)
    prefix = "backbone/"
    backbone_variables = [
        {p.removeprefix(prefix): leaf for p, leaf in tree.items() if p.startswith(prefix)}
        for tree in variables
    ]
    x = jnp.zeros((4, 64, 64, 1))
    forward = lambda x: models.apply(backbone, *backbone_variables, x, train=False)[0]  # noqa: E731
    _, features = forward(x)
    head_variables = Variables(
        *({p: leaf for p, leaf in tree.items() if not p.startswith(prefix)} for tree in variables)
    )
    width = max(16, features[16].shape[-1])
    head = PointDetector(FixedFeatures(features), 3, tuple(config.model.strides), width)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detect, "build", lambda *_: head)
        head_functions = detect.model_functions(config, split.classes, inputs)
        head_flops = step_flops(head_functions, head_variables)
    assert head_flops < frozen_flops <= 1.05 * (count_flops(forward, x) + head_flops)
