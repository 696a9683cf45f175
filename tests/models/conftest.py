"""Shapes of the backbones, traced once for all tests."""

from functools import cache

import jax
import pytest


@pytest.fixture(scope="session")
def shapes():
    """name -> flat (params, stats) of shapes, of the classifier of 1000 classes on 3 channels."""
    from tinyjax import models

    @cache
    def shapes_of(name):
        model = models.build(name, 1000)
        return jax.eval_shape(lambda: models.init(model, 0, (1, 64, 64, 3)))

    return shapes_of
