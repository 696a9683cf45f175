"""Detectors and necks as arguments of the config files that come with tinyjax."""

from itertools import product

import pytest

from tinyjax.config import load
from tinyjax.errors import UserError
from tinyjax.training.validation import check_config

DETECTORS = ("point", "retinanet", "faster_rcnn", "cascade_rcnn")
FILES = ("own.py:source=x", "hit_uav.py:steps=9", "coco.py:batch=8", "lvis.py:retrain=2000")


@pytest.mark.parametrize(("file", "detector"), [*product(FILES, DETECTORS)])
def test_each_file_takes_each_detector(file, detector):
    config = load(f"configs/{file},detector={detector},neck=fpn")
    check_config(config)
    assert (config.model.detector, config.model.neck) == (detector, "fpn")
    assert load(f"configs/{file},detector={detector}").model.neck == "pan"


def test_a_detector_with_its_own_neck():
    network = "own.py:source=x,detector=faster_rcnn_mobilenet,backbone=mobilenetv3/large"
    check_config(load(f"configs/{network}"))
    for file in (network, "hit_uav.py:detector=faster_rcnn_mobilenet"):
        with pytest.raises(UserError, match="faster_rcnn_mobilenet has its own; leave neck out"):
            load(f"configs/{file},neck=fpn")
