"""Populations of every detector, with every neck, on both ladders of backbones."""

import json

import pytest

from tests.population.test_devices import run_on_eight_devices


def check_members(output):
    """The JSON of `detector_steps.compare`: both members train as they do alone."""
    small, large = json.loads(output)
    for member in (small, large):
        assert member["losses"] < 1e-9
        assert member["weights"] < 1e-9
        assert member["padding"] == 0
        assert member["change"] != 0
    assert small["padded"] > 50
    assert large["padded"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("detector", "neck", "family"),
    [
        ("point", "bifpn", "mobilenetv3"),
        ("point", "fpn", "efficientnet"),
        ("retinanet", "fpn", "mobilenetv3"),
        ("retinanet", "nasfpn", "efficientnet"),
        ("faster_rcnn", "nasfpn", "mobilenetv3"),
        ("faster_rcnn", "bifpn", "efficientnet"),
        ("cascade_rcnn", "bifpn", "mobilenetv3"),
        ("cascade_rcnn", "pan", "efficientnet"),
    ],
)
def test_members_train_as_they_do_alone(detector, neck, family):
    """In float64: a padded member, and one with a frozen backbone, sharded over several devices."""
    output = run_on_eight_devices("-m", "tests.population.detector_steps", detector, neck, family)
    check_members(output)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["wide", "wide+tpu"])
@pytest.mark.parametrize(("neck", "family"), [("pan", "mobilenetv3"), ("fpn", "efficientnet")])
def test_members_side_by_side_train_as_they_do_alone(neck, family, method):
    """As above, with the channels of both members on one axis, and by the operations of a TPU."""
    script = "tests.population.detector_steps"
    check_members(run_on_eight_devices("-m", script, "point", neck, family, method))


@pytest.mark.slow
@pytest.mark.parametrize("detector", ["retinanet", "cascade_rcnn"])
def test_operations_of_a_tpu_train_detectors_with_anchors(detector):
    script = "tests.population.detector_steps"
    check_members(run_on_eight_devices("-m", script, detector, "fpn", "mobilenetv3", "vmap+tpu"))
