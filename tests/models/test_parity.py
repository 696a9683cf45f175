"""Evaluation mode against the outputs of timm's and torchvision's own networks."""

import json

import jax
import numpy as np
import pytest

from tests.models.make_references import CLASSES, FOLDER, LOGITS, digest, draw, image
from tinyjax import models
from tinyjax.models import torch_names

ALL = sorted(path.stem for path in FOLDER.glob("*.npz"))
QUICK = (
    *("timm.efficientnet.b0", "timm.efficientnet.b-3", "timm.efficientnet.b-7"),
    *("torchvision.mobilenetv3.large", "torchvision.mobilenetv3.s-0"),
    *("torchvision.mobilenetv3.s-3", "torchvision.mobilenetv3.s-6"),
)


def load(stem, shapes):
    """A reference: the arrays stored, our model, its flat shapes, and their name of each path."""
    source, family, variant = stem.split(".")
    model = models.build(f"{family}/{variant}", CLASSES)
    if source == "timm":
        model = model.clone(eps=1e-5)  # of both families there
    params, stats = shapes(f"{family}/{variant}")
    theirs = {path: getattr(torch_names, source)(path, model.arch) for path in [*params, *stats]}
    return np.load(FOLDER / f"{stem}.npz"), model, params, stats, theirs


@pytest.mark.parametrize("stem", ALL)
def test_names_and_shapes_are_one_to_one(stem, shapes):
    stored, _, params, stats, theirs = load(stem, shapes)
    state_dict = json.loads(str(stored["shapes"]))
    assert sorted(theirs.values()) == sorted(state_dict)
    for path, leaf in {**params, **stats}.items():
        value = np.empty(state_dict[theirs[path]])
        assert torch_names.from_torch(value, leaf.ndim).shape == leaf.shape, path


@pytest.mark.parametrize(
    "stem", [stem if stem in QUICK else pytest.param(stem, marks=pytest.mark.slow) for stem in ALL]
)
def test_logits_and_features_are_the_source_librarys(stem, shapes):
    stored, model, *flat, theirs = load(stem, shapes)
    state_dict = json.loads(str(stored["shapes"]))

    def weight(path, leaf):
        return torch_names.from_torch(draw(theirs[path], state_dict[theirs[path]]), leaf.ndim)

    params, stats = ({path: weight(path, leaf) for path, leaf in part.items()} for part in flat)
    run = jax.jit(lambda params, stats, x: models.apply(model, params, stats, x, train=False)[0])
    logits, features = run(params, stats, image())
    found = {f"feature{k}": digest(np.asarray(f)) for k, f in features.items()}
    found["logits"] = logits[:, ::LOGITS]
    assert found.keys() == set(stored) - {"shapes", "multiply_adds"}
    for key, value in found.items():
        scale = np.abs(stored[key]).mean()
        np.testing.assert_allclose(value, stored[key], atol=1e-4 * scale, rtol=1e-4, err_msg=key)


@pytest.mark.parametrize("name_of", [torch_names.timm, torch_names.torchvision])
def test_other_paths_have_no_name(name_of):
    with pytest.raises(ValueError, match="'neck/kernel' is no path"):
        name_of("neck/kernel", models.build("efficientnet/b0").arch)
