"""Evaluation mode against the outputs of timm's and torchvision's own networks."""

import json

import jax
import numpy as np
import pytest
from make_references import CLASSES, FOLDER, LOGITS, SHAPE, digest, draw, image

from tinyjax import models
from tinyjax.models import names


def draw_as_theirs(shapes, state_dict, name_of):
    """Weights for our flat `shapes`, drawn under the names of a torch `state_dict` of shapes."""
    return {
        path: names.from_torch(draw(name_of(path), state_dict[name_of(path)]), len(leaf.shape))
        for path, leaf in shapes.items()
    }


@pytest.mark.parametrize("reference", sorted(FOLDER.glob("*.npz")), ids=lambda path: path.stem)
def test_logits_and_features_are_the_source_librarys(reference):
    source, family, variant = reference.stem.split(".")
    stored = np.load(reference)
    state_dict = json.loads(str(stored["shapes"]))
    model = models.build(f"{family}/{variant}", CLASSES)
    model = model.clone(eps=1e-5 if source == "timm" or family == "efficientnet" else 1e-3)

    def name_of(path):
        return getattr(names, source)(path, model.arch)

    params, stats = jax.eval_shape(lambda: models.init(model, 0, SHAPE))
    assert sorted(map(name_of, [*params, *stats])) == sorted(state_dict)
    params = draw_as_theirs(params, state_dict, name_of)
    stats = draw_as_theirs(stats, state_dict, name_of)

    run = jax.jit(lambda p, s, x: models.apply(model, p, s, x, train=False)[0])
    logits, features = run(params, stats, image())
    assert features.keys() == {int(k[7:]) for k in stored if k.startswith("feature")}
    found = {"logits": logits[:, ::LOGITS], **{f"feature{k}": f for k, f in features.items()}}
    for key, value in found.items():
        ours = value if key == "logits" else digest(np.asarray(value))
        np.testing.assert_allclose(
            ours, stored[key], rtol=1e-4, atol=1e-4 * np.abs(stored[key]).mean(), err_msg=key
        )
