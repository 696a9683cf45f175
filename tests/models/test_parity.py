"""Evaluation mode against the outputs of timm's and torchvision's own networks."""

import json

import jax
import numpy as np
import pytest

from tests.models.make_references import CLASSES, FOLDER, LOGITS, digest, draw, image
from tinyjax import models
from tinyjax.models import torch_names

ALL = sorted(path.stem for path in FOLDER.glob("*.npz"))
FAST = (
    "timm.efficientnet.b-7",
    "torchvision.mobilenetv3.large",
    "torchvision.mobilenetv3.s-6",
)


def load(stem, shapes):
    """The stored arrays, our model, its flat shapes, and the source library's name of each path."""
    source, family, variant = stem.split(".")
    model = models.build(f"{family}/{variant}", CLASSES)
    if source == "timm":
        model = model.clone(eps=1e-5)  # in timm, of both families
    params, stats = shapes(f"{family}/{variant}")
    name_of = torch_names.NAME_FUNCTIONS[source]
    names = {path: name_of(path, model.arch) for path in [*params, *stats]}
    return np.load(FOLDER / f"{stem}.npz"), model, params, stats, names


@pytest.mark.parametrize("stem", ALL)
def test_names_and_shapes_are_one_to_one(stem, shapes):
    stored, _, params, stats, names = load(stem, shapes)
    state_dict = json.loads(str(stored["shapes"]))
    assert sorted(names.values()) == sorted(state_dict)
    for path, leaf in {**params, **stats}.items():
        value = np.empty(state_dict[names[path]])
        assert torch_names.from_torch_layout(value, leaf.ndim).shape == leaf.shape, path


@pytest.mark.parametrize(
    "stem", [stem if stem in FAST else pytest.param(stem, marks=pytest.mark.slow) for stem in ALL]
)
def test_logits_and_features_match_the_source_library(stem, shapes):
    stored, model, *flat, names = load(stem, shapes)
    state_dict = json.loads(str(stored["shapes"]))

    def weight(path, leaf):
        return torch_names.from_torch_layout(draw(names[path], state_dict[names[path]]), leaf.ndim)

    params, stats = ({path: weight(path, leaf) for path, leaf in tree.items()} for tree in flat)
    run = jax.jit(lambda params, stats, x: models.apply(model, params, stats, x, train=False)[0])
    logits, features = run(params, stats, image())
    outputs = {f"feature{k}": digest(np.asarray(f)) for k, f in features.items()}
    outputs["logits"] = logits[:, ::LOGITS]
    assert outputs.keys() == set(stored) - {"shapes", "multiply_adds"}
    for key, value in outputs.items():
        scale = np.abs(stored[key]).mean()
        np.testing.assert_allclose(value, stored[key], atol=1e-4 * scale, rtol=1e-4, err_msg=key)


@pytest.mark.parametrize("name_of", [torch_names.timm_name, torch_names.torchvision_name])
def test_unknown_paths_are_rejected(name_of):
    with pytest.raises(ValueError, match="'neck/kernel' is not a path"):
        name_of("neck/kernel", models.build("efficientnet/b0").arch)
