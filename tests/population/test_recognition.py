"""Populations of recognition networks with two paths, and of their pretraining."""

import pytest

from tests.population.test_detectors import check_members
from tests.population.test_devices import run_on_eight_devices


@pytest.mark.slow
@pytest.mark.parametrize("task", ["reid", "pretrain"])
def test_members_train_as_they_do_alone(task, noise_images):
    """In float64: a padded member, and one with a frozen backbone, sharded over several devices."""
    module = "tests.population.recognition_steps"
    check_members(run_on_eight_devices("-m", module, task, str(noise_images)))
