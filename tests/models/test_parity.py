"""Evaluation mode against the outputs of timm's and torchvision's own networks."""

import json
import re

import jax
import numpy as np
import pytest

from tests.models.make_references import (
    CLASSES,
    FOLDER,
    LOGITS,
    SHAPE,
    STATISTICS,
    digest,
    draw,
    image,
)  # fmt: skip
from tests.tiny_backbones import MICRO_CONVNEXT, MICRO_SWIN
from tinyjax import models

ALL = sorted(path.stem for path in FOLDER.glob("*.npz"))
FAST = (
    "LightCNN.lightcnn.9",
    *(f"torchvision.{name.replace('/', '.')}" for name in (MICRO_CONVNEXT, MICRO_SWIN)),
    "timm.efficientnet.b-7",
    "timm.vit.tiny.160x192",
    "torchvision.mobilenetv3.large",
    "torchvision.mobilenetv3.s-6",
    "torchvision.resnet.18",
    "torchvision.shufflenetv2.n-5",
    "timm.ghostnet.g-7",
)

every_reference = pytest.mark.parametrize(
    "stem", [stem if stem in FAST else pytest.param(stem, marks=pytest.mark.slow) for stem in ALL]
)


def split_stem(stem):
    """E.g. "timm.vit.tiny.160x192" -> ("timm", "vit", "tiny")."""
    return re.fullmatch(r"(\w+)\.(\w+)\.(.+?)(?:\.\d+x\d+)?", stem).groups()


def load(stem, shapes):
    """The stored arrays, our model, its flat shapes, and the source library's name of each path."""
    source, family, variant = split_stem(stem)
    model = models.build(f"{family}/{variant}", CLASSES)
    source_format = models.family(family).TORCH_FORMATS[source]
    model = model.clone(eps=source_format.eps)
    params, stats = shapes(f"{family}/{variant}")
    names = {path: source_format.name(path, model.arch) for path in [*params, *stats]}
    return np.load(FOLDER / f"{stem}.npz"), model, params, stats, names, source_format.convert


def draw_weights(stored, flat, names, convert):
    """Draw the weights that the stored outputs belong to, in our layout."""
    state_dict = json.loads(str(stored["shapes"]))

    def weight(path, leaf):
        return convert(path, draw(names[path], state_dict[names[path]]), leaf.shape)

    return [{path: weight(path, leaf) for path, leaf in tree.items()} for tree in flat]


def to_source_order(path, vector, convert):
    """Return the vector with its channels in the order of the source library."""
    vector = np.asarray(vector)
    reordered = np.empty_like(vector)
    reordered[convert(path, np.arange(len(vector)), vector.shape)] = vector
    return reordered


@every_reference
def test_names_and_shapes_are_one_to_one(stem, shapes):
    stored, _, params, stats, names, convert = load(stem, shapes)
    state_dict = json.loads(str(stored["shapes"]))
    assert sorted(names.values()) == sorted(state_dict)
    for path, leaf in {**params, **stats}.items():
        value = np.zeros(state_dict[names[path]])
        assert convert(path, value, leaf.shape).shape == leaf.shape, path


@every_reference
def test_logits_and_features_match_the_source_library(stem, shapes):
    stored, model, *flat, names, convert = load(stem, shapes)
    params, stats = draw_weights(stored, flat, names, convert)
    run = jax.jit(lambda params, stats, x: models.apply(model, params, stats, x, train=False)[0])
    logits, features = run(params, stats, image(tuple(stored.get("input", SHAPE))))
    outputs = {f"feature{k}": digest(np.asarray(f)) for k, f in features.items()}
    outputs["logits"] = logits[:, ::LOGITS]
    assert outputs.keys() == set(stored) - {"shapes", "input", "multiply_adds", "statistics"}
    for key, value in outputs.items():
        scale = np.abs(stored[key]).mean()
        np.testing.assert_allclose(value, stored[key], atol=1e-4 * scale, rtol=1e-4, err_msg=key)


@pytest.mark.parametrize(
    "stem",
    [
        stem if stem in FAST else pytest.param(stem, marks=pytest.mark.slow)
        for stem in ALL
        if "statistics" in np.load(FOLDER / f"{stem}.npz")
    ],
)
def test_running_statistics_of_a_training_step_match_the_source_library(stem, shapes):
    stored, model, *flat, names, convert = load(stem, shapes)
    params, stats = draw_weights(stored, flat, names, convert)
    run = jax.jit(lambda params, stats, x: models.apply(model, params, stats, x, train=True)[1])
    updated = {
        names[path]: to_source_order(path, leaf, convert)
        for path, leaf in run(params, stats, image(tuple(stored.get("input", SHAPE)))).items()
    }
    values = np.concatenate([updated[name] for name in sorted(updated)])[::STATISTICS]
    np.testing.assert_allclose(values, stored["statistics"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", models.FAMILIES)
def test_unknown_paths_are_rejected(name):
    variant = next(iter(models.family(name).VARIANTS))
    for source_format in models.family(name).TORCH_FORMATS.values():
        with pytest.raises(ValueError, match="'neck/kernel' is not a path"):
            source_format.name("neck/kernel", models.build(f"{name}/{variant}").arch)
