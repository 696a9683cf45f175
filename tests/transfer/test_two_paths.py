"""Weights of networks with two paths: starting weights, averages, freezing, layer decay."""

from functools import cache

import jax
import numpy as np
import pytest

from tests.tiny_backbones import TINY
from tinyjax import models
from tinyjax.config import classifier
from tinyjax.core import Variables
from tinyjax.errors import UserError
from tinyjax.models.path_blocks import block_of
from tinyjax.transfer import freezing, regularizers, rgn
from tinyjax.transfer.starting_weights import StartingWeights, describe, fit_to_network
from tinyjax.transfer.weight_averaging import average_paths

COPY = "backbone/infrared/"


@cache
def shapes(path_blocks, channels):
    model = models.build(TINY, 3, path_blocks=path_blocks)
    return jax.eval_shape(lambda: models.init(model, 0, (1, 32, 32, channels)))


def network(path_blocks, seed=0, channels=1):
    rng = np.random.default_rng(seed)
    return Variables(
        *(
            {f"backbone/{path}": rng.normal(size=leaf.shape) for path, leaf in tree.items()}
            for tree in shapes(path_blocks, channels)
        )
    )


def arrays(path_blocks, **options):
    params, stats = network(path_blocks, **options)
    return params | stats


def starting_weights(path_blocks, **options):
    return StartingWeights("a.safetensors", arrays(path_blocks, seed=1, **options), 0.0)


@pytest.mark.parametrize(("old", "new"), [(0, 4), (0, 1), (1, 4)])
def test_missing_copies_start_as_the_visible_path(old, new):
    weights, current = starting_weights(old), arrays(new)
    fitted = fit_to_network(weights, current)
    assert fitted.loaded == (*current,)
    assert fitted.new == fitted.skipped == ()
    assert {*fitted.copied} == current.keys() - weights.arrays.keys() != set()
    for path, leaf in fitted.arrays.items():
        source = path.replace("infrared/", "") if path in fitted.copied else path
        np.testing.assert_allclose(leaf, weights.arrays[source], rtol=1e-6)
    text = f"  {len(fitted.copied)} arrays of the infrared path are copies of the visible path"
    assert text in describe(fitted, weights)


def test_weights_of_two_paths_fit_such_a_network():
    weights = starting_weights(4)
    fitted = fit_to_network(weights, arrays(4))
    assert fitted.copied == ()
    assert "copies" not in describe(fitted, weights)
    np.testing.assert_allclose(
        fitted.arrays[f"{COPY}stem/kernel"], weights.arrays[f"{COPY}stem/kernel"], rtol=1e-6
    )


@pytest.mark.parametrize("old", [0, 1])
def test_both_stems_are_converted_to_the_channels_of_the_images(old):
    weights = starting_weights(old, channels=3)
    fitted = fit_to_network(weights, arrays(1))
    stems = ("backbone/stem/kernel", f"{COPY}stem/kernel")
    assert {*fitted.reshaped} == {*stems}
    for stem in stems:
        source = weights.arrays[stem if old else stems[0]]
        np.testing.assert_allclose(fitted.arrays[stem], source.sum(2, keepdims=True), rtol=1e-5)


def test_copies_can_be_initialized_again():
    current = arrays(1)
    fitted = fit_to_network(starting_weights(0), current, (f"{COPY}.*",))
    assert {path for path in current if path.startswith(COPY)} == {*fitted.new}
    assert fitted.copied == ()


@pytest.mark.parametrize(("old", "new"), [(4, 0), (4, 1), (1, 0)])
def test_more_copies_than_the_network_has_are_an_error(old, new):
    with pytest.raises(UserError, match="two copies of these blocks"):
        fit_to_network(starting_weights(old), arrays(new))


# ---- averages of the two copies


def test_averaged_copies_have_the_arrays_of_a_network_with_fewer():
    start = network(4)
    arch = models.architecture(TINY, path_blocks=4)
    averaged = average_paths(start, arch)
    for tree, expected, old in zip(averaged, network(1), start, strict=True):
        assert {p: x.shape for p, x in tree.items()} == {p: x.shape for p, x in expected.items()}
        for path, leaf in tree.items():
            mean = old[path]
            if 2 <= block_of(path.removeprefix("backbone/"), arch) <= 4:
                mean = (mean + old[path.replace("backbone/", COPY)]) / 2
            np.testing.assert_allclose(leaf, mean, rtol=1e-12)
    assert f"{COPY}stem/kernel" in averaged.params
    assert any(path.endswith("/var") for path in averaged.stats)


def test_average_of_equal_copies_is_the_copy():
    single, arch = network(0), models.architecture(TINY, path_blocks=4)
    dual = Variables(
        *(
            {path: old[path.replace(COPY, "backbone/")] for path in new}
            for new, old in zip(network(4), single, strict=True)
        )
    )
    averaged = average_paths(dual, arch, path_blocks=0)
    jax.tree.map(np.testing.assert_array_equal, averaged, single)


@pytest.mark.parametrize("path_blocks", [4, 5, -1])
def test_blocks_without_copies_cannot_be_averaged(path_blocks):
    arch = models.architecture(TINY, path_blocks=4)
    with pytest.raises(UserError, match=f"path_blocks = {path_blocks}: .* blocks 1 to 4; give"):
        average_paths(network(4), arch, path_blocks)


# ---- freezing, layer decay, regularizers


@pytest.mark.parametrize(
    ("preset", "prefixes"),
    [
        ("stem", ("stem/",)),
        ("stage<=1", ("stem/", "stage1/")),
        ("backbone", ("stem/", "stage")),
    ],
)
def test_presets_freeze_both_copies(preset, prefixes):
    multipliers = freezing.freeze_multipliers(arrays(4), (preset,))
    for path, multiplier in multipliers.items():
        relative = path.removeprefix("backbone/").removeprefix("infrared/")
        assert multiplier == (0 if relative.startswith(prefixes) else 1), path


def test_both_copies_have_one_multiplier_of_layer_decay():
    decay = freezing.layer_decay_multipliers(arrays(4), 0.5)
    assert decay == freezing.layer_decay_multipliers(arrays(0), 0.5) | {
        path: decay[path.replace(COPY, "backbone/")] for path in decay if path.startswith(COPY)
    }
    assert decay[f"{COPY}stem/kernel"] == 0.5**6


def test_layers_of_recognition_networks_are_no_backbone():
    paths = ["backbone/stem/kernel", "neck_bn/scale", "neck_bn/mean", "neck_bn/var"]
    paths.append("classifier/kernel")
    for preset, frozen in (("all but head", 1), ("all but last layer", 4), ("batchnorm", 3)):
        multipliers = freezing.freeze_multipliers(paths, (preset,))
        assert sum(m == 0 for m in multipliers.values()) == frozen
    config = classifier()
    config.optimizer.backbone_lr_scale = 0.1
    multipliers = freezing.lr_multipliers([*paths, f"{COPY}stem/kernel"], config)
    slow = {path for path, m in multipliers.items() if m == 0.1}
    assert slow == {"backbone/stem/kernel", f"{COPY}stem/kernel"}


def test_copies_count_as_backbone():
    path = f"{COPY}stage2/block0/expand/kernel"
    assert regularizers.is_regularized(path)
    assert rgn.in_backbone_rgn(path)
    assert rgn.depth_key(path)[:3] == rgn.depth_key(path.replace(COPY, "backbone/"))[:3]


def test_classifiers_of_other_identities_must_be_initialized_again():
    current = {"classifier/kernel": np.zeros((4, 3)), "neck_bn/scale": np.zeros(4)}
    weights = StartingWeights(
        "a.safetensors", {**current, "classifier/kernel": np.zeros((4, 5))}, 0.0, "", ("a", "b")
    )
    with pytest.raises(UserError, match=r"with reinit = \('classifier/\.\*',\)"):
        fit_to_network(weights, current, classes=("c",))
    fitted = fit_to_network(weights, current, ("classifier/.*",), ("c",))
    assert fitted.new == ("classifier/kernel",)
