"""Detections from the outputs of a detector's file, in numpy: what a reader without tinyjax does.

Everything it needs is in the file's metadata. `decode.h` is the same in C.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

MAX_LOG_SIZE = 4.0  # of the point detector, see its box_formula
MAX_LOG_GROWTH = np.log(1000 / 16)  # of RetinaNet


def decode(
    outputs: Mapping[str, np.ndarray], metadata: Mapping[str, Any], threshold: float = 0.0
) -> np.ndarray:
    """The detections of one image, float32 [n, 6]: x1, y1, x2, y2, score, label.

    Args:
        outputs: <name>_<stride> f32[1, h, w, n] of all levels; integer ones dequantized.
        metadata: of the file.
        threshold: detections have higher scores.
    """
    classes, nms = len(metadata["classes"]), metadata["nms"]
    levels = [
        _decode_level(outputs, metadata, level, stride)
        for level, stride in enumerate(metadata["strides"])
    ]
    boxes = np.concatenate([boxes for boxes, _ in levels])
    scores = np.concatenate([scores for _, scores in levels]).ravel()
    best = np.argsort(-scores, kind="stable")[: nms["pre_nms_top_k"]]
    best = best[scores[best] > threshold]
    rows = np.column_stack([boxes[best // classes], scores[best], best % classes])
    return suppress(rows.astype(np.float32), nms["iou_threshold"])[: nms["max_detections"]]


def _decode_level(
    outputs: Mapping[str, np.ndarray], metadata: Mapping[str, Any], level: int, stride: int
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [h w A, 4] and scores [h w A, classes] of a level."""
    is_point = metadata["detector"] == "point"
    deltas = outputs[f"{'offsets' if is_point else 'deltas'}_{stride}"]
    logits = outputs[f"logits_{stride}"].reshape(-1, len(metadata["classes"]))
    _, h, w, _ = deltas.shape
    deltas = deltas.reshape(h, w, -1, 4)
    corner = np.stack(np.meshgrid(np.arange(w), np.arange(h)), -1)[:, :, None] * stride
    if is_point:
        center, size = corner + stride / 2, np.float32(stride)
        log_size = np.clip(deltas[..., 2:], -MAX_LOG_SIZE, MAX_LOG_SIZE)
    else:
        anchors = np.array(metadata["anchors"][level])
        center, size = (
            corner + (anchors[:, :2] + anchors[:, 2:]) / 2,
            anchors[:, 2:] - anchors[:, :2],
        )
        log_size = np.minimum(deltas[..., 2:], MAX_LOG_GROWTH)
    center, half = center + deltas[..., :2] * size, np.exp(log_size) * size / 2
    boxes = np.concatenate([center - half, center + half], -1).reshape(-1, 4)
    if not is_point:
        height, width = metadata["input"]["height"], metadata["input"]["width"]
        boxes = np.clip(boxes, 0, [width, height, width, height])
    return boxes, 1 / (1 + np.exp(-logits))


def suppress(rows: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Greedy suppression within each class, of rows [n, 6] in descending order of score."""
    kept: list[int] = []
    areas = (rows[:, 2] - rows[:, 0]) * (rows[:, 3] - rows[:, 1])
    for i, row in enumerate(rows):
        others = rows[kept]
        sides = np.minimum(others[:, 2:4], row[2:4]) - np.maximum(others[:, :2], row[:2])
        overlap = np.maximum(sides, 0).prod(-1)
        iou = overlap / np.maximum(areas[kept] + areas[i] - overlap, 1e-9)
        if not ((iou > iou_threshold) & (others[:, 5] == row[5])).any():
            kept.append(i)
    return rows[kept]
