"""Shapes of the backbones, traced once for all tests."""

from functools import cache

import jax
import pytest


@pytest.fixture(scope="session")
def shapes():
    """name -> flat (params, stats) of shapes, of the classifier of 1000 classes.

    It reads as many channels as the published weights of the family, mostly 3.
    """
    from tinyjax import models

    @cache
    def shapes_of(name):
        model = models.build(name, 1000)
        channels = next(iter(models.family(name).TORCH_FORMATS.values())).channels
        return jax.eval_shape(lambda: models.init(model, 0, (1, 64, 64, channels)))

    return shapes_of
