"""Your own data, from scratch: COCO, Pascal VOC, YOLO or prepared files, in a folder or a zip.

    python -m tinyjax.train --config configs/own.py:source=mine.zip --workdir runs/mine

Arguments, joined by commas: source, a folder, a zip, YOLO's yaml or a COCO json; format (coco, voc,
yolo, arrayrecord), if it is not recognized or there are several; classes, joined by + (default: all
in the data); ignore_classes, joined by +; train and val, the names of the two splits; channels, 1
or 3; height and width of the network's input, required if the images differ in size, and fit,
letterbox or resize; first_pixel, 0 or 1, of VOC files (default: inferred from them); backbone;
detector and neck; steps. For 16-bit images see docs/data.md:
--config.data.common.range16=range,0,65535.

With task=classify, whole images are classified, and the data are folders train/<class> and
val/<class>, or format=list or tfds; height and width are required.
"""

from tinyjax.config import classifier, detector, parse_arg
from tinyjax.data.images import PERCENTILES
from tinyjax.errors import UserError, suggest

TASKS = ("detect", "classify")


def get_config(arg=None):
    arg = parse_arg(
        arg,
        task="detect",
        source="",
        format="auto",
        classes="",
        ignore_classes="",
        train="train",
        val="val",
        channels=1,
        height=0,
        width=0,
        fit="",
        first_pixel=None,
        backbone="",
        detector="",
        neck="",
        steps=0,
    )
    if arg.task not in TASKS:
        raise UserError(f"configs/own.py: task = {arg.task!r}: {suggest(arg.task, TASKS)}")
    if not arg.source:
        raise UserError("configs/own.py: give source, as in configs/own.py:source=mine.zip")
    if bool(arg.height) != bool(arg.width):
        raise UserError("configs/own.py: give both height and width, or neither")
    config = classifier() if arg.task == "classify" else detector(arg.detector or "point", arg.neck)
    config.model.backbone = arg.backbone or config.model.backbone
    config.schedule.steps = arg.steps or config.schedule.steps
    size = (arg.height, arg.width) if arg.height and arg.width else None
    config.data.common = {
        "source": arg.source,
        "classes": tuple(filter(None, arg.classes.split("+"))),
        "channels": arg.channels,
        "size": size,
        "range16": PERCENTILES,
    }
    config.data.train = {"split": arg.train}
    config.data.suites = {"val": {"split": arg.val}}
    if arg.task == "classify":
        _set_classification(config, arg, size)
    else:
        config.data.format = arg.format
        config.data.common.fit = arg.fit or "letterbox"
        config.data.common.ignore_classes = tuple(filter(None, arg.ignore_classes.split("+")))
        config.data.common.first_pixel = arg.first_pixel
    return config


def _set_classification(config, arg, size):
    if size is None:
        raise UserError(
            "configs/own.py: task=classify: give height and width of the network's input, as in "
            "height=96,width=96"
        )
    for name in ("ignore_classes", "first_pixel", "detector", "neck"):
        if arg[name] not in (None, ""):
            raise UserError(f"configs/own.py: {name} = {arg[name]!r}: only for task=detect")
    if arg.format != "auto":
        config.data.format = arg.format
    config.data.common.fit = arg.fit or "resize"
    config.crop_size = size
