"""The code of docs/deploy.md: Python as it is there, and C with decode.h."""

import ctypes
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import tinyjax
from tests.configs import detector
from tests.exporting.c_library import compile_c
from tests.untrained import write_random_detector
from tinyjax.data.images import to_uint8
from tinyjax.exporting import activations, calibration, decode, litert, onnx
from tinyjax.exporting.functions import make_function

PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"
WIDTH, HEIGHT, CLASSES, CAPACITY, MAX_DETECTIONS = 160, 128, 3, 200, 50  # as on the page
STEP, ZERO_POINT = 0.05, -7  # of all outputs
BOX = np.dtype([("box", np.float32, 4), ("score", np.float32), ("label", np.int32)])


def code_blocks(language):
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


class Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("scale", ctypes.c_float),
        ("zero_point", ctypes.c_int),
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    (code,) = code_blocks("c")
    return compile_c(code, tmp_path_factory.mktemp("c"))


def test_gray_values_in_c_are_those_of_training(library):
    library.to_gray.argtypes = [ctypes.c_uint16, ctypes.c_float, ctypes.c_float]
    library.to_gray.restype = ctypes.c_uint8
    counts = np.array([0, 2999, 3000, 3001, 3007, 3500, 4199, 4200, 65535], np.uint16)
    actual = [library.to_gray(int(count), 3000.0, 4200.0) for count in counts]
    assert actual == to_uint8(counts, ("range", 3000, 4200)).tolist()
    assert (actual[0], actual[-1]) == (0, 255)


def test_c_has_the_detections_of_decode(library):
    rng, integers, tensors = np.random.default_rng(0), {}, {}
    for name, channels in (("logits", CLASSES), ("offsets", 4)):
        for stride in (4, 8):
            shape = (1, HEIGHT // stride, WIDTH // stride, channels)
            center = -100 if name == "logits" else 0
            values = rng.normal(center, 40, shape).clip(-128, 127).astype(np.int8)
            integers[f"{name}_{stride}"] = values
            tensors.setdefault(name, []).append(Tensor(values.ctypes.data, STEP, ZERO_POINT))
    metadata = {
        "detector": "point",
        "classes": ["a", "b", "c"],
        "strides": [4, 8],
        "nms": {
            "iou_threshold": 0.5, "pre_nms_top_k": CAPACITY, "max_detections": MAX_DETECTIONS,
        },
    }  # fmt: skip
    outputs = {
        k: np.float32(STEP) * (v.astype(np.float32) - ZERO_POINT) for k, v in integers.items()
    }
    expected = decode.decode(outputs, metadata, threshold=0.3)
    boxes = np.zeros(CAPACITY, BOX)
    arrays = [(Tensor * 2)(*tensors[name]) for name in ("logits", "offsets")]
    count = library.detect(*arrays, ctypes.c_float(0.3), ctypes.c_void_p(boxes.ctypes.data))
    assert count == len(expected) == MAX_DETECTIONS
    # Scores of integers are often equal, and then their order is free.
    np.testing.assert_allclose(boxes["score"][:count], expected[:, 4], atol=1e-6)
    for score in {*expected[:-5, 4].tolist()}:
        rows = [
            np.abs(boxes["score"][:count] - score) < 1e-6,
            np.abs(expected[:, 4] - score) < 1e-6,
        ]
        actual, wanted = boxes["box"][:count][rows[0]], expected[rows[1], :4]
        np.testing.assert_allclose(np.sort(actual, 0), np.sort(wanted, 0), atol=1e-3)


@pytest.mark.slow
def test_python_has_the_detections_of_the_run(tmp_path, monkeypatch):
    model = tinyjax.load(write_random_detector(tmp_path / "run", detector.get_config()))
    function = make_function(model, "boxes")
    nms = onnx.convert(function, 1, model.config.nms.to_dict())
    (tmp_path / "mine.onnx").write_bytes(nms.SerializeToString())
    (tmp_path / "mine.onnx.json").write_text(json.dumps({"metadata": function.metadata}))
    function = make_function(model, dtype="float32")
    file = litert.convert(function)
    images = calibration.training_images(model, 4, 1)
    ranges = activations.measure(file, images)
    (tmp_path / "mine-int8.tflite").write_bytes(litert.quantize(file, "int8", ranges))
    (tmp_path / "mine-int8.tflite.json").write_text(json.dumps({"metadata": function.metadata}))
    shutil.copy(decode.__file__, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "decode", raising=False)

    frame = np.repeat(np.repeat(images[0][0, :, :, 0].astype(np.uint8), 2, 0), 3, 1)[:90]
    prepare, run_onnx, run_litert = code_blocks("python")
    names = {"frame": frame}
    exec(prepare, names)
    image, scale, margin = names["prepare"](frame, 64, 64)
    expected = model.preprocess(frame)
    np.testing.assert_array_equal(image[0], expected.pixels)
    np.testing.assert_allclose((scale, margin), (expected.scale, expected.offset))
    exec(run_onnx, names)
    detections, rows = model(frame), names["detections"]
    assert len(detections) > 100
    np.testing.assert_allclose(rows[:, 4], detections.scores, atol=1e-4)
    np.testing.assert_allclose(rows[:, :4], detections.boxes, atol=0.02)

    exec(run_litert, names)
    detections, rows = tinyjax.load(tmp_path / "mine-int8.tflite")(frame), names["detections"]
    # The page's interpreter has the kernels of XNNPACK, which round differently.
    boxes = np.abs(rows[:, None, :4] - detections.boxes).max(-1)
    scores = np.abs(rows[:, None, 4] - detections.scores)
    matches = (boxes < 1) & (scores < 0.02) & (rows[:, None, 5] == detections.labels)
    assert matches.any(0).mean() > 0.9 < matches.any(1).mean()
