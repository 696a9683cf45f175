"""Truth and predictions for `score`, built object by object."""

import numpy as np

CLASSES = ("person", "car")


def truth_of(*objects, images=1):
    """objects: (image, label, xyxy) or (image, label, xyxy, "crowd")."""
    annotations = [
        {
            "id": i,  # starts at 0, which means "no match" in pycocotools
            "image_id": image,
            "category_id": label + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": int(bool(crowd)),
        }
        for i, (image, label, (x1, y1, x2, y2), *crowd) in enumerate(objects)
    ]
    categories = [{"id": c, "name": name} for c, name in enumerate(CLASSES, start=1)]
    infos = [{"id": i, "file_name": f"{i}.png"} for i in range(images)]
    return {"images": infos, "annotations": annotations, "categories": categories}


def predictions_of(*detections, images=1, slots=None):
    """detections: (image, label, xyxy, score); unused slots stay empty."""
    slots = slots or max(len(detections), 1)
    boxes = np.zeros((images, slots, 4), np.float32)
    scores = np.zeros((images, slots), np.float32)
    labels = np.zeros((images, slots), np.int32)
    for k, (image, label, box, value) in enumerate(detections):
        boxes[image, k], scores[image, k], labels[image, k] = box, value, label
    return {"boxes": boxes, "scores": scores, "labels": labels}
