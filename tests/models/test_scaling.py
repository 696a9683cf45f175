"""The scaled families, block by block."""

import pytest

from tinyjax.models import efficientnet, flops, ghostnet, mobilenetv3, scaling, shufflenetv2

# k -> stem, repeats x channels of the stages, head
EFFICIENTNETS = {
    0: (32, "1x16 2x24 2x40 3x80 3x112 4x192 1x320", 1280),
    1: (24, "1x16 2x16 2x32 3x56 3x80 3x128 1x216", 880),
    2: (16, "1x8 1x16 1x24 2x40 2x56 2x88 1x152", 600),
    3: (16, "1x8 1x8 1x16 1x24 1x40 2x64 1x104", 408),
    4: (8, "1x8 1x8 1x8 1x16 1x24 1x40 1x72", 280),
    5: (8, "1x8 1x8 1x8 1x16 1x16 1x32 1x48", 192),
    6: (8, "1x8 1x8 1x8 1x8 1x16 1x24 1x32", 136),
    7: (8, "1x8 1x8 1x8 1x8 1x8 1x16 1x24", 88),
}


@pytest.mark.parametrize("k", EFFICIENTNETS)
def test_efficientnet_variants(k):
    arch = efficientnet.VARIANTS[f"b-{k}" if k else "b0"]
    stages = " ".join(f"{len(stage)}x{stage[-1].out}" for stage in arch.stages)
    assert (arch.stem, stages, arch.head) == EFFICIENTNETS[k]


def test_squeeze_width_is_a_quarter_of_the_block_input():
    squeezes = [[b.squeeze for b in stage] for stage in efficientnet.VARIANTS["b-1"].stages]
    assert squeezes == [[6], [4, 4], [4, 8], [8, 14, 14], [14, 20, 20], [20, 32, 32], [32]]


def test_only_the_first_block_of_a_stage_has_a_stride():
    for variant in (*efficientnet.VARIANTS.values(), *mobilenetv3.VARIANTS.values()):
        assert all(block.stride == 1 for stage in variant.stages for block in stage[1:])


@pytest.mark.parametrize(
    ("channels", "rounded"), [(1, 8), (8, 8), (11.9, 16), (12, 16), (19, 24), (90.5, 88), (10, 16)]
)
def test_make_divisible(channels, rounded):
    # 11.9 and 10 are nearest to 8, and 19 to 16, but that is less than nine tenths of them.
    assert scaling.make_divisible(channels) == rounded


def test_mobilenet_variants_keep_depth_and_round_like_torchvision():
    arch = mobilenetv3.VARIANTS["s-3"]
    assert [len(stage) for stage in arch.stages] == [1, 2, 3, 2, 3]
    assert (arch.stem, arch.head, arch.hidden) == (8, 192, 328)
    # expansion and squeeze are scaled and rounded separately, not derived from the rounded input
    assert arch.stages[4][0] == scaling.MBConv(5, 2, 96, 32, 24, "hard_swish")


def test_shufflenet_rungs_round_to_multiples_of_four():
    arch = shufflenetv2.VARIANTS["n-3"]
    assert [{unit.out for unit in stage} for stage in arch.stages] == [{36}, {76}, {148}]
    assert (arch.stem, arch.head) == (8, 328)
    assert shufflenetv2.VARIANTS["1.0"] == scaling.shufflenetv2()
    # The published network of half the width has other channels than half of each.
    assert shufflenetv2.VARIANTS["0.5"] != scaling.shufflenetv2(0.5)


def test_ghostnet_rungs_scale_the_hidden_layer_that_published_networks_keep():
    arch = ghostnet.VARIANTS["g-3"]
    assert (arch.stem, arch.head, arch.hidden) == (8, 308, 412)
    assert {ghostnet.VARIANTS[name].hidden for name in ("0.5", "1.0", "1.3")} == {1280}
    # The squeeze width is a quarter of the expanded channels, rounded again.
    assert arch.stages[4][0] == scaling.GhostBottleneck(5, 1, 40, 12, 12)
    blocks = [b for arch in ghostnet.VARIANTS.values() for stage in arch.stages for b in stage]
    assert all(b.expand % 2 == b.out % 2 == 0 for b in blocks)


@pytest.mark.parametrize(
    ("arch", "stages", "features"),
    [
        (scaling.resnet18(), (4, 8, 16, 32), (4, 8, 16, 32)),
        (scaling.shufflenetv2(), (8, 16, 32), (4, 8, 16, 32)),
        (scaling.ghostnet(), (2, 4, 4, 8, 8, 16, 16, 32, 32), (2, 4, 8, 16, 32)),
    ],
)
def test_strides_of_stages_and_of_features(arch, stages, features):
    assert (arch.strides, arch.feature_strides) == (stages, features)


@pytest.mark.parametrize(
    "block",
    [
        scaling.ShuffleUnit(1, 16),
        scaling.ShuffleUnit(2, 24),
        scaling.GhostBottleneck(3, 1, 32, 16, 0),
        scaling.GhostBottleneck(5, 1, 32, 24, 0),
        scaling.GhostBottleneck(5, 2, 32, 24, 0),
    ],
)
def test_multiply_adds_of_a_block_equal_those_of_its_layers(block):
    is_shuffle = isinstance(block, scaling.ShuffleUnit)
    family, stem_stride = (shufflenetv2, 4) if is_shuffle else (ghostnet, 2)
    arch = scaling.Architecture(16, ((block,),), stem_stride=stem_stride)
    adds = flops.count_multiply_adds(family.Model(arch), (1, 32, 64, 1))
    assert adds == flops.multiply_adds_per_pixel(arch) * 32 * 64
