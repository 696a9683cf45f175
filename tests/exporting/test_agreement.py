"""How well the outputs of two files agree."""

import numpy as np
import pytest

import tinyjax
from tests.configs import detector
from tests.untrained import CLASSES, write_initial_weights
from tinyjax.exporting import activations, agreement, calibration, litert
from tinyjax.exporting.functions import ExportedFunction, make_function
from tinyjax.metrics import detection

METADATA = {"input": {"width": 40, "height": 30}, "classes": ["a", "b"]}


def predictions(scores):
    """Of two images, with two boxes of class 1 each."""
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 20]], np.float32)
    return {
        "boxes": np.stack([boxes, boxes + 1]),
        "scores": np.array(scores, np.float32),
        "labels": np.ones((2, 2), np.int32),
    }


def test_best_detections_are_objects(monkeypatch):
    monkeypatch.setattr(agreement, "DETECTIONS_PER_IMAGE", 1)
    truth = agreement.as_truth(predictions([[0.9, 0.8], [0, 0.2]]), METADATA)
    assert [(a["image_id"], a["category_id"], a["bbox"]) for a in truth["annotations"]] == [
        (0, 2, [0, 0, 10, 10]),
        (0, 2, [20, 0, 10, 20]),
    ]
    same = detection.score(predictions([[0.9, 0.8], [0, 0]]), truth, {})
    assert same["AP50"] == pytest.approx(1)
    # One of two objects is missing: precision 1 up to recall 0.5, of COCO's 101 values 51.
    half = detection.score(predictions([[0.9, 0], [0, 0]]), truth, {})
    assert half["AP50"] == pytest.approx(51 / 101)


def test_empty_slots_are_no_objects():
    assert not agreement.as_truth(predictions([[0, 0], [0, 0]]), METADATA)["annotations"]


def test_outputs_of_other_tasks():
    """Minus the root mean square difference / standard deviation: of 0, 1, 2, 3 and 0, 1, 2, 5."""
    values = np.arange(4, dtype=np.float32).reshape(1, 2, 2, 1)
    function = ExportedFunction(lambda x: {"y": x * 2.0}, (2, 2, 1), "float32", {})
    other = function._replace(call=lambda x: {"y": x * 2.0 + (x > 2.5) * 4.0})
    files = [litert.convert(each) for each in (function, other)]
    config = detector.get_config()
    config.task = "classify"
    agree = agreement.make_agreement(config, function, files[0], [values])
    assert agree(files[0]) == 0
    assert agree(files[1]) == pytest.approx(-2 / np.sqrt(5))


@pytest.mark.slow
def test_detections_of_an_integer_file(tmp_path):
    folder = write_initial_weights(
        tmp_path / "run", detector.get_config(), CLASSES, {"image": (64, 64, 1)}
    )
    network = tinyjax.load(folder)
    function = make_function(network, dtype="float32")
    file = litert.convert(function)
    images = calibration.training_images(network, 8, 1)
    agree = agreement.make_agreement(network.config, function, file, images)
    ranges = activations.measure(file, images)
    narrow = {name: (low / 16, high / 16) for name, (low, high) in ranges.items()}
    values = [agree(litert.quantize(file, "int8", spans)) for spans in (ranges, narrow)]
    assert agree(file) == pytest.approx(1)
    assert 1 > values[0] > values[1] >= 0
