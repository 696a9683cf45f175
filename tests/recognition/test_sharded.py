"""A batch spread over four simulated devices gives the same losses and gradients."""

import json

import pytest

from tests.population.test_devices import run_on_eight_devices


@pytest.mark.slow
def test_losses_do_not_depend_on_the_number_of_shards():
    """Sampling, augmentation and all losses, in float64."""
    differences = json.loads(run_on_eight_devices("-m", "tests.recognition.sharded"))
    assert len(differences) == 5
    assert max(differences.values()) < 1e-9, differences
