"""Your own data, from scratch: COCO, Pascal VOC, YOLO or prepared files, in a folder or a zip.

    python -m tinyjax.train --config configs/own.py:source=mine.zip --workdir runs/mine

Arguments, joined by commas: source, a folder, a zip, YOLO's yaml or a COCO json; format (coco, voc,
yolo, arrayrecord), if it is not recognized or there are several; classes, joined by + (default: all
in the data); ignore_classes, joined by +; train and val, the names of the two splits; channels, 1
or 3; height and width of the network's input, required if the images differ in size, and fit,
letterbox or resize; first_pixel, 0 or 1, of VOC files (default: inferred from them); backbone;
steps. For 16-bit images see docs/data.md: --config.data.common.range16=range,0,65535.
"""

from tinyjax.config import detector, parse_arg
from tinyjax.data.images import PERCENTILES
from tinyjax.errors import UserError


def get_config(arg=None):
    config = detector()
    arg = parse_arg(
        arg,
        source="",
        format="auto",
        classes="",
        ignore_classes="",
        train="train",
        val="val",
        channels=1,
        height=0,
        width=0,
        fit="letterbox",
        first_pixel=None,
        backbone=config.model.backbone,
        steps=config.schedule.steps,
    )
    if not arg.source:
        raise UserError("configs/own.py: give source, as in configs/own.py:source=mine.zip")
    if bool(arg.height) != bool(arg.width):
        raise UserError("configs/own.py: give both height and width, or neither")
    config.model.backbone, config.schedule.steps = arg.backbone, arg.steps
    config.data.format = arg.format
    config.data.common = {
        "source": arg.source,
        "classes": tuple(filter(None, arg.classes.split("+"))),
        "ignore_classes": tuple(filter(None, arg.ignore_classes.split("+"))),
        "channels": arg.channels,
        "size": (arg.height, arg.width) if arg.height and arg.width else None,
        "fit": arg.fit,
        "range16": PERCENTILES,
        "first_pixel": arg.first_pixel,
    }
    config.data.train = {"split": arg.train}
    config.data.suites = {"val": {"split": arg.val}}
    return config
