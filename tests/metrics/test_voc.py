"""Pascal VOC's average precision: computed by hand, and by a slow implementation for the devkit's
corners, where xmax and ymax are the last pixels inside the object.
"""

import numpy as np
import pytest

from tests.metrics.handmade import CLASSES, predictions_of, truth_of
from tinyjax.metrics.voc import average_precision, score

NAN = float("nan")
A = (10, 10, 20, 20)
B = (50, 50, 60, 60)
AWAY = (100, 100, 110, 110)
RECALL = np.array([0.2, 0.2, 0.4, 0.6, 0.6, 0.8])
PRECISION = np.array([1, 1 / 2, 2 / 3, 3 / 4, 3 / 5, 2 / 3])


def test_average_precision_of_a_curve():
    assert average_precision(RECALL, PRECISION) == pytest.approx(0.633333, abs=1e-6)
    assert average_precision(RECALL, PRECISION, eleven_point=True) == pytest.approx(
        0.659091, abs=1e-6
    )
    assert average_precision(np.zeros(0), np.zeros(0)) == 0
    assert average_precision(np.zeros(0), np.zeros(0), eleven_point=True) == 0


# objects, detections, scores, 11-point AP50
CASES = {
    "one true positive": ([(0, 0, A)], [(0, 0, A, 0.9)], {"AP": 1, "AP50": 1, "AP75": 1}, 1),
    # half of the object: the IoU of 0.5 must exceed the threshold of 0.5
    "IoU equal to the threshold": ([(0, 0, A)], [(0, 0, (10, 10, 20, 15), 0.9)], {"AP50": 0}, 0),
    # the devkit's corners are (11, 11, 20, 20) and (11, 11, 20, 16): IoU 60 / 100. Without its
    # additional pixel it is 45 / 81, with one more for boxes that end at edges 77 / 121
    "sides in pixels": (
        [(0, 0, A)],
        [(0, 0, (10, 10, 20, 16), 0.9)],
        {"AP50": 1, "AP": 2 / 10, "AP75": 0},
        1,
    ),
    "second detection is false": (
        [(0, 0, A), (0, 0, B)],
        [(0, 0, A, 0.9), (0, 0, A, 0.8), (0, 0, B, 0.7)],
        {"AP50": 1 / 2 + 1 / 2 * 2 / 3, "boxes": 2},
        (6 + 5 * 2 / 3) / 11,
    ),
    # COCO would match the second detection with the other object, with an IoU of 0.69
    "taken object, though another one is free": (
        [(0, 0, (0, 0, 10, 10)), (0, 0, (0, 2, 10, 14))],
        [(0, 0, (0, 0, 10, 10), 0.9), (0, 0, (0, 1, 10, 11), 0.8)],
        {"AP50": 1 / 2},
        6 / 11,
    ),
    "difficult object": (
        [(0, 0, A), (0, 0, B, "crowd")],
        [(0, 0, B, 0.9), (0, 0, B, 0.8), (0, 0, AWAY, 0.7), (0, 0, A, 0.6)],
        {"AP50": 0.5, "boxes": 1, "AP/car": NAN},
        0.5,
    ),
    "missed difficult object": (
        [(0, 0, A), (0, 0, B, "crowd")],
        [(0, 0, A, 0.6)],
        {"AP50": 1},
        1,
    ),
    # 25 of 100 px are inside: COCO would ignore the detection
    "false detection inside a difficult object": (
        [(0, 0, A), (0, 0, B, "crowd")],
        [(0, 0, (50, 50, 55, 55), 0.9), (0, 0, A, 0.6)],
        {"AP50": 0.5},
        0.5,
    ),
    "mean over classes": (
        [(0, 0, A), (0, 1, B)],
        [(0, 0, A, 0.9), (0, 0, B, 0.8)],
        {"AP50": 0.5, "AP50/person": 1, "AP50/car": 0, "AP/car": 0},
        0.5,
    ),
    "nothing predicted": ([(0, 0, A)], [], {"AP": 0, "AP50": 0, "AP/car": NAN}, 0),
    "no objects": ([], [(0, 0, A, 0.9)], {"AP": NAN, "AP50": NAN, "images": 1, "boxes": 0}, NAN),
    "empty slots and non-finite values": (
        [(0, 0, A)],
        [(0, 0, AWAY, 0), (0, 0, AWAY, NAN), (0, 0, (NAN, 0, 1, 1), 0.9), (0, 0, A, 0.1)],
        {"AP50": 1},
        1,
    ),
}


@pytest.mark.parametrize(
    ("objects", "detections", "expected", "eleven_point"), CASES.values(), ids=CASES
)
def test_scores_by_hand(objects, detections, expected, eleven_point):
    predictions, truth = predictions_of(*detections), truth_of(*objects)
    scores = score(predictions, truth)
    assert {k: scores[k] for k in expected} == pytest.approx(expected, nan_ok=True, abs=1e-9)
    ap50 = score(predictions, truth, eleven_point=True)["AP50"]
    assert ap50 == pytest.approx(eleven_point, nan_ok=True)


def test_images_are_ranked_together():
    truth = truth_of((0, 0, A), (1, 0, A), images=2)
    predictions = predictions_of((0, 0, A, 0.3), (1, 0, AWAY, 0.9), (1, 0, A, 0.2), images=2)
    # false, true, true: precision 2/3 at full recall
    assert score(predictions, truth)["AP50"] == pytest.approx(2 / 3)


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="predictions for 2 images"):
        score(predictions_of(images=2), truth_of())
    with pytest.raises(ValueError, match="2 classes"):
        score(predictions_of((0, 2, A, 0.9)), truth_of())


@pytest.mark.parametrize("eleven_point", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_slow_implementation_agrees(seed, eleven_point):
    rng = np.random.default_rng(seed)
    images = 6
    objects, detections = [], []
    for _ in range(40):
        image, label = int(rng.integers(images)), int(rng.integers(2))
        box = _random_box(rng)
        objects.append((image, label, box, *["crowd"] * (rng.random() < 0.2)))
        for _ in range(rng.integers(4)):
            moved = np.array(box) + rng.integers(-2, 3, 4)
            if (moved[2:] > moved[:2]).all():
                detections.append((image, label, (*moved.tolist(),), _random_score(rng)))
    for _ in range(30):
        image, label = int(rng.integers(images)), int(rng.integers(2))
        detections.append((image, label, _random_box(rng), _random_score(rng)))
    rng.shuffle(detections)
    detections = [(int(i), int(c), (*box,), float(s)) for i, c, box, s in detections]

    truth = truth_of(*objects, images=images)
    scores = score(predictions_of(*detections, images=images), truth, eleven_point)
    for label, name in enumerate(CLASSES):
        expected = _slow_ap(
            [(i, box, bool(crowd)) for i, c, box, *crowd in objects if c == label],
            # the rank of equal scores is that of the slots
            sorted(
                ((i, box, np.float32(s)) for i, c, box, s in detections if c == label),
                key=lambda row: row[0],
            ),
            eleven_point,
        )
        assert 0.05 < expected < 0.95
        assert scores[f"AP50/{name}"] == pytest.approx(expected, abs=1e-12)


def _random_box(rng):
    x, y = rng.integers(0, 60, 2).tolist()
    w, h = rng.integers(4, 15, 2).tolist()
    return x, y, x + w, y + h


def _random_score(rng):
    return float(rng.integers(1, 30)) / 32  # some are equal


def _slow_ap(objects, detections, eleven_point):
    """The devkit's rules, one detection at a time."""
    taken, hits = set(), []
    for image, box, _ in sorted(detections, key=lambda row: -row[2]):
        best, best_iou = None, -1.0
        for j, (object_image, object_box, _) in enumerate(objects):
            if object_image == image:
                iou = _devkit_iou(_to_devkit(box), _to_devkit(object_box))
                if iou > best_iou:
                    best, best_iou = j, iou
        if best_iou > 0.5 and objects[best][2]:
            continue
        hits.append(best_iou > 0.5 and best not in taken)
        if hits[-1]:
            taken.add(best)
    total = sum(not difficult for *_, difficult in objects)
    curve = [(sum(hits[:n]) / total, sum(hits[:n]) / n) for n in range(1, len(hits) + 1)]
    if eleven_point:
        levels = np.arange(0, 1.1, 0.1)
        return sum(max((p for r, p in curve if r >= t), default=0) for t in levels) / 11
    area, last = 0.0, 0.0
    for n, (recall, _) in enumerate(curve):
        area += (recall - last) * max(p for _, p in curve[n:])
        last = recall
    return area


def _to_devkit(box):
    """Edges of the box -> its first and last pixels, counted from 1."""
    x1, y1, x2, y2 = box
    return x1 + 1, y1 + 1, x2, y2


def _devkit_iou(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0]) + 1
    h = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if w <= 0 or h <= 0:
        return 0.0
    areas = [(x2 - x1 + 1) * (y2 - y1 + 1) for x1, y1, x2, y2 in (a, b)]
    return w * h / (sum(areas) - w * h)
