"""Decoding outside of a file: numpy and C have the detections of the run."""

import ctypes

import jax
import numpy as np
import pytest

from tests.configs import detector
from tests.exporting.c_library import compile_c
from tests.untrained import CLASSES
from tinyjax.data.images import GRAY
from tinyjax.detectors.anchors import configured_levels
from tinyjax.exporting.decode import decode
from tinyjax.exporting.predictions import flatten_levels
from tinyjax.tasks.detect import get_detector

SIZE = (48, 64)
PROGRAM = """
#include "decode.h"
int level(const float *logits, const float *deltas, int h, int w, int A, int classes, int stride,
          const float *anchors, int width, int height, float threshold, tinyjax_box *boxes,
          int count, int capacity) {
    return tinyjax_level(logits, deltas, h, w, A, classes, stride, anchors, width, height,
                         threshold, boxes, count, capacity);
}
int nms(tinyjax_box *boxes, int count, float iou, int max) {
    return tinyjax_nms(boxes, count, iou, max);
}
"""
BOX = np.dtype([("box", np.float32, 4), ("score", np.float32), ("label", np.int32)])


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return compile_c(PROGRAM, tmp_path_factory.mktemp("c"))


@pytest.fixture(params=["point", "retinanet"])
def case(request):
    """Config, outputs of the levels, and the metadata of a file: random maps with objects."""
    config = detector.get_config(name=request.param)
    config.nms.max_detections, config.nms.pre_nms_top_k = 40, 150
    rng, outputs = np.random.default_rng(0), {}
    is_point = request.param == "point"
    metadata = {
        "detector": request.param,
        "classes": [*CLASSES],
        "strides": list(config.model.strides),
        "nms": config.nms.to_dict(),
        "input": {"height": SIZE[0], "width": SIZE[1], "channels": 1},
        "letterbox_fill": GRAY,
    }
    if not is_point:
        levels = configured_levels(config, SIZE)
        metadata["anchors"] = [level.cell.tolist() for level in levels]
    for i, stride in enumerate(config.model.strides):
        h, w = SIZE[0] // stride, SIZE[1] // stride
        anchors = 1 if is_point else len(metadata["anchors"][i])
        name = "offsets" if is_point else "deltas"
        shapes = {"logits": anchors * len(CLASSES), name: anchors * 4}
        for key, n in shapes.items():
            outputs[f"{key}_{stride}"] = rng.normal(size=(1, h, w, n)).astype(np.float32) * 2
    return config, outputs, metadata


def run_detections(config, outputs):
    flat = flatten_levels(outputs, config.model.strides, CLASSES)
    result = jax.device_get(get_detector(config).decode(flat, SIZE, config))
    rows = np.column_stack([result["boxes"][0], result["scores"][0], result["labels"][0]])
    return rows[result["scores"][0] > 0]


def c_detections(library, outputs, metadata):
    nms, (height, width) = metadata["nms"], SIZE
    boxes, count = np.zeros(nms["pre_nms_top_k"], BOX), 0
    name = "offsets" if metadata["detector"] == "point" else "deltas"
    library.level.argtypes = [
        *[ctypes.c_void_p] * 2, *[ctypes.c_int] * 5, ctypes.c_void_p, *[ctypes.c_int] * 2,
        ctypes.c_float, ctypes.c_void_p, *[ctypes.c_int] * 2,
    ]  # fmt: skip
    library.nms.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_float, ctypes.c_int]
    for i, stride in enumerate(metadata["strides"]):
        logits, deltas = outputs[f"logits_{stride}"], outputs[f"{name}_{stride}"]
        _, h, w, n = deltas.shape
        anchors = None
        if "anchors" in metadata:
            anchors = np.array(metadata["anchors"][i], np.float32)
        count = library.level(
            logits.ctypes.data, deltas.ctypes.data, h, w, n // 4, len(CLASSES), stride,
            None if anchors is None else anchors.ctypes.data, width, height, 0.0,
            boxes.ctypes.data, count, len(boxes),
        )  # fmt: skip
    count = library.nms(boxes.ctypes.data, count, nms["iou_threshold"], nms["max_detections"])
    rows = boxes[:count]
    return np.column_stack([rows["box"], rows["score"], rows["label"]])


def test_numpy_has_the_detections_of_the_run(case):
    config, outputs, metadata = case
    expected = run_detections(config, outputs)
    assert len(expected) == 40
    np.testing.assert_allclose(decode(outputs, metadata), expected, atol=1e-3)


def test_c_has_the_detections_of_the_run(case, library):
    config, outputs, metadata = case
    expected = run_detections(config, outputs)
    np.testing.assert_allclose(c_detections(library, outputs, metadata), expected, atol=1e-3)
