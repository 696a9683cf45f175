"""Sizes of every backbone against those of timm and torchvision, from shapes alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.make_references import FOLDER
from tests.tiny_backbones import REGISTERED
from tinyjax import models
from tinyjax.models import flops
from tinyjax.models.layers import ConvBN, Dense

# Parameters with 1000 classes, without the classifier's last layer, of stem and stages; million
# multiply-adds at 224 x 224; channels at strides (2, if there are five) 4, 8, 16, 32.
SIZES = {
    "efficientnet/b0": (5288548, 4007548, 3595388, 385.81, (16, 24, 40, 112, 320)),
    "efficientnet/b-1": (2523976, 1642976, 1451136, 201.90, (16, 16, 32, 80, 216)),
    "efficientnet/b-2": (1194756, 593756, 501356, 71.25, (8, 16, 24, 56, 152)),
    "efficientnet/b-3": (671604, 262604, 219356, 34.95, (8, 8, 16, 40, 104)),
    "efficientnet/b-4": (366364, 85364, 64644, 19.83, (8, 8, 8, 24, 72)),
    "efficientnet/b-5": (245464, 52464, 42864, 17.90, (8, 8, 8, 16, 48)),
    "efficientnet/b-6": (170020, 33020, 28396, 16.50, (8, 8, 8, 16, 32)),
    "efficientnet/b-7": (108688, 19688, 17400, 15.68, (8, 8, 8, 8, 24)),
    "mobilenetv3/large": (5483032, 4202032, 2816432, 216.59, (16, 24, 40, 112, 160)),
    "mobilenetv3/small": (2542856, 1517856, 870560, 56.51, (16, 16, 24, 48, 96)),
    "mobilenetv3/s-1": (1418080, 713080, 416696, 32.92, (16, 16, 16, 32, 64)),
    "mobilenetv3/s-2": (857888, 376888, 223768, 17.59, (8, 8, 16, 24, 48)),
    "mobilenetv3/s-3": (511720, 182720, 112888, 10.83, (8, 8, 8, 16, 32)),
    "mobilenetv3/s-4": (320632, 95632, 59408, 7.73, (8, 8, 8, 16, 24)),
    "mobilenetv3/s-5": (204280, 51280, 34808, 6.19, (8, 8, 8, 8, 16)),
    "mobilenetv3/s-6": (136984, 31984, 20168, 5.03, (8, 8, 8, 8, 16)),
    "resnet/18": (11689512, 11176512, 11176512, 1814.07, (64, 64, 128, 256, 512)),
    "resnet/34": (21797672, 21284672, 21284672, 3663.76, (64, 64, 128, 256, 512)),
    "resnet/50": (25557032, 23508032, 23508032, 4089.18, (64, 256, 512, 1024, 2048)),
    "resnet/101": (44549160, 42500160, 42500160, 7801.41, (64, 256, 512, 1024, 2048)),
    "convnext/tiny": (28589128, 27820128, 27818592, 4455.53, (96, 192, 384, 768)),
    "swin/tiny": (28288354, 27519354, 27517818, 4350.43, (96, 192, 384, 768)),
    "shufflenetv2/0.5": (1366792, 341792, 143136, 40.48, (24, 24, 48, 96, 192)),
    "shufflenetv2/1.0": (2278604, 1253604, 776420, 144.91, (24, 24, 116, 232, 464)),
    "shufflenetv2/1.5": (3503624, 2478624, 1755680, 295.76, (24, 24, 176, 352, 704)),
    "shufflenetv2/2.0": (7393996, 5344996, 3342052, 583.25, (24, 24, 244, 488, 976)),
    "shufflenetv2/n-1": (1295504, 594504, 371904, 70.95, (16, 16, 80, 160, 316)),
    "shufflenetv2/n-2": (763868, 282868, 178228, 35.61, (12, 12, 56, 108, 216)),
    "shufflenetv2/n-3": (466624, 137624, 88424, 17.93, (8, 8, 36, 76, 148)),
    "shufflenetv2/n-4": (293964, 68964, 45220, 10.35, (8, 8, 24, 52, 104)),
    "shufflenetv2/n-5": (189940, 32940, 22020, 5.05, (4, 4, 16, 36, 68)),
    "ghostnet/0.5": (2587292, 1306292, 651252, 42.33, (8, 12, 20, 56, 80)),
    "ghostnet/1.0": (5182508, 3901508, 2515908, 141.15, (16, 24, 40, 112, 160)),
    "ghostnet/1.3": (7358820, 6077820, 4217020, 227.00, (20, 32, 52, 144, 208)),
    "ghostnet/g-1": (2719222, 1842222, 1194530, 71.92, (12, 16, 28, 76, 108)),
    "ghostnet/g-2": (1486552, 885552, 578496, 37.87, (8, 12, 20, 52, 76)),
    "ghostnet/g-3": (837470, 424470, 280530, 22.17, (8, 8, 12, 36, 52)),
    "ghostnet/g-4": (485322, 204322, 136626, 11.82, (4, 8, 8, 24, 36)),
    "ghostnet/g-5": (292576, 99576, 67992, 7.58, (4, 4, 8, 16, 24)),
    "ghostnet/g-6": (182516, 49516, 34384, 5.67, (4, 4, 4, 12, 16)),
    "ghostnet/g-7": (119356, 26356, 19056, 4.48, (4, 4, 4, 8, 12)),
}
# Each other variant has the same layers, so counting its operations shows little more.
FAST = [
    name
    if name.startswith(("convnext/", "swin/"))
    or name in ("efficientnet/b-3", "mobilenetv3/large", "mobilenetv3/s-4", "resnet/18")
    or name in ("shufflenetv2/n-5", "ghostnet/g-7")
    else pytest.param(name, marks=pytest.mark.slow)
    for name in SIZES
]
# Networks of other input channels or levels; their own tests check their sizes.
OTHERS = ("lightcnn/9", "lightcnn/29", "lightcnn/29v2", "vit/tiny", "vit/small", "vit/base")
LADDERS = {
    "efficientnet": ("b0", *(f"b-{k}" for k in range(1, 8))),
    "mobilenetv3": ("small", *(f"s-{k}" for k in range(1, 7))),
    "shufflenetv2": ("1.0", *(f"n-{k}" for k in range(1, 6))),
    "ghostnet": ("1.0", *(f"g-{k}" for k in range(1, 8))),
}
# Parameters of S-0..S-6 up to the last convolution (torchvision's `model.features`).
SMALL_FEATURES = (927008, 442040, 238168, 119416, 63152, 36536, 21896)


def without(params, *prefixes):
    return {path: leaf for path, leaf in params.items() if not path.startswith(prefixes)}


def test_table_covers_every_variant():
    assert set(models.variants()) == {*SIZES, *OTHERS, "mobilenetv3/s-0", *REGISTERED}
    assert models.build("mobilenetv3/s-0") == models.build("mobilenetv3/small")


@pytest.mark.parametrize("name", SIZES)
def test_parameter_counts(name, shapes):
    total, headless, trunk, _, _ = SIZES[name]
    params, _ = shapes(name)
    assert flops.count_parameters(params) == total
    assert flops.count_parameters(without(params, "classifier/")) == headless
    assert flops.count_parameters(without(params, "head/", "hidden/", "classifier/")) == trunk


def test_parameter_counts_of_mobilenet_features(shapes):
    for k, size in enumerate(SMALL_FEATURES):
        name = f"mobilenetv3/s-{k}" if k else "mobilenetv3/small"
        assert flops.count_parameters(without(shapes(name)[0], "hidden/", "classifier/")) == size


@pytest.mark.parametrize("family", LADDERS)
def test_parameters_decrease_from_rung_to_rung(family, shapes):
    for prefixes in (("classifier/",), ("head/", "hidden/", "classifier/")):
        counts = [
            flops.count_parameters(without(shapes(f"{family}/{rung}")[0], *prefixes))
            for rung in LADDERS[family]
        ]
        assert counts == sorted(set(counts), reverse=True)
    assert 15_000 < counts[-1] < 25_000


@pytest.mark.parametrize("name", FAST)
def test_multiply_adds_match_the_source_library(name):
    model = models.build(name, 1000)
    adds = flops.count_multiply_adds(model, (1, 224, 224, 3))
    assert round(adds / 1e6, 2) == SIZES[name][3]
    source = next(iter(models.family(name).TORCH_FORMATS))
    stored = name.replace("/small", "/s-0").replace("/", ".")
    reference = np.load(FOLDER / f"{source}.{stored}.npz")["multiply_adds"]
    assert adds == reference[0]
    if name in ("efficientnet/b-3", "mobilenetv3/s-4", "swin/tiny"):
        assert flops.count_multiply_adds(model, (1, 320, 320, 3)) == reference[1]


@pytest.mark.parametrize("name", FAST)
def test_without_classes_only_the_trunk_is_built(name):
    model = models.build(name)

    def evaluate():
        return model.init_with_output(jax.random.key(0), jnp.ones((2, 65, 96, 1)), train=False)

    (logits, features), variables = jax.eval_shape(evaluate)
    assert logits is None
    params, stem = jax.tree.leaves(variables["params"]), variables["params"]["stem"]["kernel"]
    missing = 2 * jax.tree.leaves(stem)[0].size  # the table counts a stem of three channels
    assert sum(leaf.size for leaf in params) + missing == SIZES[name][2]
    strides = (2, 4, 8, 16, 32)[-len(SIZES[name][4]) :]
    assert {stride: f.shape for stride, f in features.items()} == {
        stride: (2, -(-65 // stride), 96 // stride, channels)
        for stride, channels in zip(strides, SIZES[name][4], strict=True)
    }


class Neck(nn.Module):
    """A module as in detectors: dict input, shared kernels, groups, vectors."""

    @nn.compact
    def __call__(self, features, train):
        shared = ConvBN(6, 3, groups=2, name="shared")
        levels = [shared(x, train) for x in features.values()]
        return Dense(5, name="out")(levels[0])


def test_multiply_adds_of_a_custom_module():
    per_position = 3 * 3 * (4 // 2) * 6
    adds = flops.count_multiply_adds(Neck(), {8: (2, 8, 10, 4), 16: (2, 4, 5, 4)})
    assert adds == 2 * (80 + 20) * per_position + 2 * 80 * 6 * 5
