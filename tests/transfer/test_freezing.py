"""Rules, presets and other libraries' numbers; that frozen is frozen, and costs nothing."""

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
from tinyjax.data.synthetic import dataset
from tinyjax.detectors.point import Detector
from tinyjax.errors import UserError
from tinyjax.models.layers import ConvBN, Dense
from tinyjax.tasks import classify, detect
from tinyjax.transfer import freezing

BN = ("scale", "bias", "mean", "var")


@cache
def paths_of(kind=detect, backbone="mobilenetv3/s-6"):
    config = detector()
    config.model.backbone = backbone
    model = kind.make_model(config, 3)
    trees = jax.eval_shape(lambda: models.init(model, 0, (1, 64, 64, 1)))
    return tuple(path for tree in trees for path in tree)


def frozen(*rules, paths=None):
    paths = paths or paths_of()
    return {path for path, rate in freezing.multipliers(paths, rules).items() if rate == 0}


def starting(*prefixes, paths=None):
    return {path for path in paths or paths_of() if path.startswith(prefixes)}


def test_presets_are_the_parts_they_are_named_after():
    everything = {*paths_of()}
    assert frozen() == set()
    assert frozen("backbone") == starting("backbone/") != set()
    assert frozen("stem") == starting("backbone/stem/")
    assert frozen("stage<=2") == starting("backbone/stem/", "backbone/stage1", "backbone/stage2")
    assert frozen("all but head") == everything - starting("head/")
    assert frozen("batchnorm") == {p for p in everything if p.endswith(BN)} - {
        p for p in everything if p.endswith("/bias") and ("/se/" in p or "_out/" in p)
    }
    assert frozen("stem", "batchnorm") == frozen("stem") | frozen("batchnorm")


def test_presets_of_a_classifier():
    paths = paths_of(classify)
    last = starting("backbone/classifier/", paths=paths)
    assert len(last) == 2
    assert frozen("all but head", paths=paths) == {*paths} - last
    behind = starting("backbone/head/", "backbone/hidden/", paths=paths)
    assert frozen("backbone", paths=paths) == {*paths} - last - behind


def test_the_first_rule_that_matches_counts():
    rates = freezing.multipliers(
        paths_of(),
        (("backbone/stem/bn/.*", 0.5), "stem", (r"neck/.*", 2), (".*", 0.1)),
    )
    assert rates["backbone/stem/bn/scale"] == 0.5
    assert rates["backbone/stem/kernel"] == 0
    assert rates["neck/lateral32/kernel"] == 2
    assert rates["head/class_out/kernel"] == 0.1


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (("backbones",), r"freeze: 'backbones': did you mean 'backbone'"),
        (("stage<=0",), r"'stage<=0'.*known: .*stage<=1"),
        ((("backbone/.*", 0),), r"no rule for head/.*end with \('\.\*', 1\)"),
        ((("backbone/stem", 0), (".*", 1)), "'backbone/stem' matches no path.*such as backbone/st"),
        ((("(", 0), (".*", 1)), r"\('\(', 0\): give a preset, or \(regular expression, multiplier"),
        ((("stem", 0, 1),), r"\('stem', 0, 1\): give a preset"),
        (((".*", -1),), "give a multiplier of 0 or more"),
        (((".*", float("nan")),), "give a multiplier of 0 or more"),
        (((".*", "no"),), "give a preset"),
        (("stage<=6",), "'stage<=6': this backbone has 5 stages"),
        (
            ((".*", 1), ("backbone/.*", 0)),
            r"'backbone/\.\*': the rules before it match all its paths.*put it before them",
        ),
        (
            (("backbone/stem/.*", 0), ("backbone/.*", 1), ("backbone/stem/.*", 0.5), (".*", 1)),
            r"'backbone/stem/\.\*': the rules before it",
        ),
        (((".*/var", 0), (".*", 1)), "freeze: .*/bn: of mean and var one is .* both or neither"),
        (((".*/mean", 0), (".*", 1)), "freeze: .*/bn: of mean and var one is .* both or neither"),
    ],
)
def test_what_is_no_rule_is_refused(rules, message):
    with pytest.raises(UserError, match=message):
        freezing.multipliers(paths_of(), rules)


def test_a_rule_that_never_counts_but_changes_nothing_is_none_of_our_business():
    assert frozen("stage<=2", "stem") == frozen("stage<=2")
    assert frozen(("backbone/.*", 0), ("(neck|head)/.*", 1), (".*", 1)) == frozen("backbone")


@pytest.mark.parametrize(
    ("rules", "part"),
    [(((".*(mean|var)", 1), (".*", 0)), 1.0), ((("backbone/.*", 1), (".*", 0)), 0.0)],
)
def test_nothing_left_to_train_is_refused(rules, part):
    config = detector()
    config.freeze, config.optimizer.backbone_lr_scale = rules, part
    with pytest.raises(UserError, match="nothing is left to train"):
        freezing.lr_multipliers(paths_of(), config)


def test_rates_of_backbone_and_layers():
    """By hand: S-6 has 11 blocks; the last one's layer is 11 of 12, the stem's is 0."""
    config = detector()
    config.optimizer.backbone_lr_scale, config.optimizer.layer_decay = 0.5, 0.9
    config.freeze = ("stem",)
    rates = freezing.lr_multipliers(paths_of(), config)
    blocks = sorted(
        {p.split("/block")[0] + p.split("/block")[1][:1] for p in rates if "/block" in p}
    )
    assert len(blocks) == 11
    assert rates["backbone/stem/kernel"] == 0
    assert rates["head/class_out/kernel"] == rates["neck/lateral32/bn/scale"] == 1
    assert rates["backbone/stage1/block0/project/kernel"] == pytest.approx(0.5 * 0.9**11)
    assert rates["backbone/stage5/block2/project/kernel"] == pytest.approx(0.5 * 0.9)


@pytest.mark.parametrize(
    ("backbone", "at"),
    [
        ("mobilenetv3/s-6", ("stage<=1", "stage<=2", "stage<=4", "stage<=5")),
        ("efficientnet/b-7", ("stage<=2", "stage<=3", "stage<=5", "stage<=7")),
    ],
)
def test_numbers_of_other_libraries(backbone, at):
    """Detectron2's FREEZE_AT 2 = mmdetection's frozen_stages 1 = torchvision's 3 trainable layers:
    stem and the stage at stride 4.
    """
    arch = models.architecture(backbone)
    expected = [(), ("stem",), *((preset,) for preset in at)]
    for number, preset in enumerate(expected):
        assert freezing.preset_for("detectron2", number, arch) == preset
        assert freezing.preset_for("mmdetection", number - 1, arch) == preset
        assert freezing.preset_for("torchvision", 5 - number, arch) == preset
    with pytest.raises(UserError, match="mmdet"):
        freezing.preset_for("mmdet", 1, arch)
    with pytest.raises(UserError, match="detectron2: 6 is none"):
        freezing.preset_for("detectron2", 6, arch)


def test_table_says_what_trains_at_which_rate():
    rates = {"backbone/stem/kernel": 0.0, "head/a": 1.0, "head/b": 0.5, "head/c": 0.0}
    text = freezing.describe(
        rates, {"backbone/stem/kernel": 1200, "head/a": 10, "head/b": 5, "head/c": 1}
    )
    assert text.splitlines() == [
        "  backbone/stem         1,200 frozen",
        "  head                  10 train, 5 train at 0.5 of the rate, 1 frozen",
    ]


class Toy(nn.Module):
    """Two convolutions with BatchNorm and a linear layer."""

    @nn.compact
    def __call__(self, x, train):
        x = ConvBN(4, 3, act="relu", name="stem")(x, train)
        x = ConvBN(4, 3, 2, act="relu", name="body")(x, train)
        return Dense(2, name="out")(x.mean((1, 2)))


def toy_task():
    model = Toy()

    def init(seed):
        trees = models.init(model, seed, (1, 8, 8, 1))
        return steps.Variables(*jax.tree.map(lambda leaf: leaf.astype(jnp.float64), trees))

    def loss(variables, fixed, batch, key, hyper):
        x, y = batch
        out, stats = models.apply(model, *variables, x, train=True, fixed=fixed)
        return ((out - y) ** 2).mean(), (stats, {})

    return steps.Task(init, loss, lambda *_: None, lambda *_: [])


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_frozen_by_an_array_is_frozen_by_structure(name):
    """In float64, 20 steps with decay, clipping and EMA: the same weights, and what is frozen has
    not moved in one bit, its BatchNorm's moments neither.
    """
    with jax.enable_x64(True):
        task = toy_task()
        tx = steps.make_optimizer(name, 0.9, 0.999, 0.5)
        variables = task.init(0)
        rates = freezing.multipliers(
            [*variables.params, *variables.stats],
            (("stem/.*", 0), ("body/bn/(mean|var)", 0), ("out/.*", 0.3), (".*", 1)),
        )
        hyper = {"seed": 0, "lr": 0.05, "weight_decay": 0.1, "ema": 0.9}
        partial = {p: r for p, r in rates.items() if r not in (0, 1)}
        assert set(partial.values()) == {0.3}
        moving = steps.trainable(rates)
        ways = {
            "structure": (moving, {**hyper, "multiplier": partial}),
            "array": (None, {**hyper, "multiplier": {p: jnp.asarray(r) for p, r in rates.items()}}),
            "free": (None, hyper),
        }
        rng = np.random.default_rng(0)
        batches = [(rng.normal(size=(4, 8, 8, 1)), rng.normal(size=(4, 2))) for _ in range(20)]
        ends = {}
        for way, (what, numbers) in ways.items():
            state = steps.init_state(variables, tx, what)
            step = jax.jit(steps.make_step(task, tx, lambda step: 1.0, what))
            for batch in batches:
                state, metrics = step(state, batch, numbers)
            ends[way] = (state, metrics)
        (a, of_a), (b, of_b), (free, _) = ends.values()
        assert float(of_a["gradient_norm"]) == pytest.approx(
            float(of_b["gradient_norm"]), rel=1e-12
        )
        start = {**variables.params, **variables.stats}
        for of in (lambda s: s.weights, lambda s: s.ema):
            one, other = ({**v.params, **v.stats} for v in (s.variables(of(s)) for s in (a, b)))
            for path in start:
                np.testing.assert_allclose(one[path], other[path], rtol=1e-10, atol=1e-13)
                if rates[path] == 0:
                    np.testing.assert_array_equal(one[path], start[path])
                    np.testing.assert_array_equal(other[path], start[path])
                else:
                    assert np.abs(one[path] - start[path]).max() > 1e-4
        moved, held = (s.variables(s.weights).params["stem/kernel"] for s in (free, a))
        assert np.abs(moved - held).max() > 1e-3
        trains = sum(leaf.size for path, leaf in variables.params.items() if rates[path] > 0)
        moments = [leaf.size for leaf in jax.tree.leaves(a.moments) if leaf.ndim]
        assert set(moments) == {trains}


class Given(nn.Module):
    """In a backbone's place: features that are there already. Not without x: its augmentation is
    part of the step.
    """

    features: dict

    @nn.compact
    def __call__(self, x, train):
        return None, {stride: f + 0 * x.sum() for stride, f in self.features.items()}


def flops(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


def test_a_frozen_backbone_costs_its_forward_pass():
    """The step's FLOPs, gradient norm and all, are at most 1.05 times those of the backbone forward
    and of the step of neck and head on given features.
    """
    config = tiny_config.get_config()
    split = dataset.load(4, (64, 64), seed=3)
    batch, hyper = detect.on_device(split), tasks.hyper_of(config)
    tx = steps.make_optimizer("adamw", 0.9, 0.999, 10.0)
    task = detect.make_task(config, split.classes, 1)
    variables = task.init(0)

    def of_step(task, variables, what=None):
        step = steps.make_step(task, tx, lambda step: 1.0, what)
        return flops(step, steps.init_state(variables, tx, what), batch, hyper)

    rates = freezing.multipliers([*variables.params, *variables.stats], ("backbone",))
    part = of_step(task, variables, steps.trainable(rates))

    backbone = tasks.build_backbone(config)
    own = [
        {p.removeprefix("backbone/"): leaf for p, leaf in tree.items() if p.startswith("backbone/")}
        for tree in variables
    ]
    x = jnp.zeros((4, 64, 64, 1))
    forward = flops(lambda x: models.apply(backbone, *own, x, train=False)[0], x)
    _, features = models.apply(backbone, *own, x, train=False)[0]
    rest = steps.Variables(
        *(
            {p: leaf for p, leaf in tree.items() if not p.startswith("backbone/")}
            for tree in variables
        )
    )
    given = Detector(Given(features), 3, tuple(config.model.strides), width_of(features))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detect, "make_model", lambda *_: given)
        behind = of_step(detect.make_task(config, split.classes, 1), rest)
    assert behind < part <= 1.05 * (forward + behind)


def width_of(features):
    return max(16, features[16].shape[-1])
