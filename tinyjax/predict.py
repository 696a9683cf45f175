"""Predict: what a trained network finds in an image or in a folder of images.

    python -m tinyjax.predict --workdir runs/hit_uav --input photos/ --output found/

Writes <output>/<file name>.png with the boxes drawn, and <output>/predictions.json: a list in the
COCO format of results, image_id counting the images in order of name, bbox = x, y, width, height in
pixels of the file.
"""

import json
import sys
from pathlib import Path

from tinyjax import config as configs
from tinyjax import runfolder
from tinyjax.errors import UserError, exit_code

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
FLAGS = {
    "--input": {
        "required": True,
        "type": Path,
        "metavar": "PATH",
        "help": "an image, or a folder of images",
    },
    "--output": {
        "required": True,
        "type": Path,
        "metavar": "DIR",
        "help": "where pictures and json go",
    },
    "--weights": {
        "choices": ("last", "best"),
        "default": "last",
        "help": "averaged weights: the last, or the best",
    },
    "--threshold": {
        "type": float,
        "default": 0.3,
        "help": "lowest score that is kept (default 0.3)",
    },
}


def main(argv: list[str] | None = None) -> int:
    options = configs.options("predict", __doc__, argv, FLAGS, needs=("workdir",))
    config, variables, about = runfolder.load_run(
        options.workdir, options.weights, options.overrides
    )
    files = find_images(options.input)
    if options.output.resolve() == files[0].parent.resolve():
        raise UserError(f"--output {options.output}: the images are there; name another folder")

    import numpy as np

    from tinyjax import figures
    from tinyjax.data.images import PERCENTILES, letterbox, read, to_file
    from tinyjax.tasks import detect

    runfolder.start_log()
    (height, width, channels), classes = about["frame"], tuple(about["classes"])
    task = detect.make_task(config, classes, channels)
    options.output.mkdir(parents=True, exist_ok=True)
    results = []
    for number, file in enumerate(files):
        image = read(file, channels, config.data.common.get("range16", PERCENTILES))
        fitted, scale, offset = letterbox(image, (height, width))
        predictions = detect.predict_all(task, variables, fitted[None], batch=1)
        keep = predictions["scores"][0] >= options.threshold
        boxes = to_file(predictions["boxes"][0], scale, offset)
        found = {
            "boxes": np.clip(boxes, 0, np.tile(image.shape[1::-1], 2))[keep],
            "scores": predictions["scores"][0][keep],
            "labels": predictions["labels"][0][keep],
        }
        picture = figures.draw(image, found=found, threshold=options.threshold)
        figures.legend(picture, classes).save(options.output / f"{file.name}.png")
        for (x1, y1, x2, y2), score, label in zip(
            *(found[name].tolist() for name in ("boxes", "scores", "labels")), strict=True
        ):
            results.append(
                {
                    "image_id": number,
                    "file_name": file.name,
                    "category_id": label + 1,
                    "category": classes[label],
                    "bbox": [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)],
                    "score": round(score, 4),
                }
            )
    with runfolder.atomic(options.output / "predictions.json") as path:
        path.write_text(json.dumps(results, indent=1))
    runfolder.log.info(
        f"{len(results)} objects in {len(files)} images; "
        f"pictures and predictions.json in {options.output}"
    )
    return 0


def find_images(source: Path) -> list[Path]:
    """An image file, or all of a folder in order of name. Raises UserError if there is none."""
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UserError(f"--input {source}: no such file or folder")
    files = sorted(f for f in source.iterdir() if f.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(
            f"--input {source}: no images in this folder; known are {', '.join(SUFFIXES)}"
        )
    return files


if __name__ == "__main__":
    sys.exit(exit_code(main))
