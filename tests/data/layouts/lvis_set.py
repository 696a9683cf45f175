"""A generated miniature of LVIS v1, with the files, folders and fields of the published set."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 64
CATEGORIES = {2: "aardvark", 5: "banana", 9: "cart", 12: "dagger"}  # as in LVIS, by name
FREQUENCY = {2: "f", 5: "c", 9: "r", 12: "r"}
# Image id, folder, objects (category, x, y, side), verified absent, not exhaustively labeled
ROWS = {
    "train": [
        (4, "train2017", [(2, 4, 4, 12), (2, 30, 20, 16)], [9], []),
        (1, "train2017", [(2, 10, 8, 14)], [5, 12], [2]),
        (8, "train2017", [(2, 40, 24, 12), (5, 4, 30, 10)], [], []),
        (7, "train2017", [], [2, 5], []),
        (3, "train2017", [(2, 20, 20, 16)], [], [9]),
        (6, "train2017", [(9, 20, 10, 20)], [2], []),
    ],
    # The images of LVIS val are from train2017 and val2017 of COCO.
    "val": [
        (2, "val2017", [(2, 8, 8, 14), (9, 40, 20, 12)], [5], []),
        (11, "train2017", [(5, 30, 20, 16)], [2, 12], [5]),
        (12, "val2017", [(2, 24, 20, 12)], [], []),
    ],
}


def write(folder: Path) -> Path:
    """Write the set into `folder` and return it."""
    for split, rows in ROWS.items():
        images, annotations = [], []
        for number, subfolder, objects, negative, not_exhaustive in rows:
            path = f"{subfolder}/{number:012}.jpg"
            _save_image(folder / path, number, objects)
            images.append(
                {
                    "date_captured": "2013-11-14 17:02:52",
                    "neg_category_ids": negative,
                    "id": number,
                    "license": 4,
                    "height": HEIGHT,
                    "width": WIDTH,
                    "flickr_url": f"http://farm3.staticflickr.com/{number}_z.jpg",
                    "coco_url": f"http://images.cocodataset.org/{path}",
                    "not_exhaustive_category_ids": not_exhaustive,
                }
            )
            for category, x, y, side in objects:
                x2, y2 = x + side, y + side
                annotations.append(
                    {
                        "area": float(side * side),
                        "id": len(annotations) + 1,
                        "segmentation": [[x, y, x2, y, x2, y2, x, y2]],
                        "image_id": number,
                        "bbox": [float(x), float(y), float(side), float(side)],
                        "category_id": category,
                    }
                )
        document = {
            "info": {"description": "LVIS", "version": "v1.0"},
            "annotations": annotations,
            "images": images,
            "licenses": [],
            "categories": [_category(number, annotations) for number in CATEGORIES],
        }
        file = folder / "annotations" / f"lvis_v1_{split}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(document))
    return folder


def _category(number: int, annotations: list) -> dict:
    name = CATEGORIES[number]
    objects = [a["image_id"] for a in annotations if a["category_id"] == number]
    return {
        "image_count": len(set(objects)),
        "synonyms": [name],
        "def": f"what {name} means",
        "id": number,
        "synset": f"{name}.n.01",
        "name": name,
        "frequency": FREQUENCY[number],
        "instance_count": len(objects),
    }


def _save_image(file: Path, seed: int, objects: list) -> None:
    pixels = np.random.default_rng(seed).integers(0, 60, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    for category, x, y, side in objects:
        pixels[y : y + side, x : x + side] = 120 + 10 * category
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(buffer.getvalue())
