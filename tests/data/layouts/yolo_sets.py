"""A tiny YOLO set with given label files, and its boxes."""

from tests.data.layouts import source_files
from tests.data.loaders import load_detection

SPLITS = {"train": 3}
BOX = "0.5 0.5 0.25 0.25"


def write(folder, *texts, yaml=""):
    """A set whose first images have these label files; returns its folder."""
    source_files.yolo(folder, SPLITS)
    for file in (folder / "labels" / "train").iterdir():
        file.unlink()
    for i, text in enumerate(texts):
        source_files.save(folder / "labels" / "train" / f"train_{i:02d}.txt", text)
    if yaml:
        (folder / "data.yaml").write_text(f"train: images/train\n{yaml}", encoding="utf-8")
    return folder


def read_boxes(folder, **options):
    """The boxes of each image, in pixels rounded to 0.01."""
    split = load_detection(folder, "train", **options)
    return [
        [
            [label, *(round(float(v), 2) for v in box)]
            for box, label in zip(b[v], lab[v], strict=True)
        ]
        for b, lab, v in zip(split.boxes, split.labels, split.valid, strict=True)
    ]


def skip_errors(folder):
    """The boxes that are read and the messages, if invalid lines are left out."""
    messages = []
    boxes = read_boxes(folder, on_error=lambda problem, message: messages.append(message))
    return boxes, messages
