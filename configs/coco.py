"""Your own images in the COCO layout, from a folder or a zip, from scratch.

    python -m tinyjax.train --workdir runs/mine \\
        --config configs/coco.py:source=mine.zip,classes=person+dog

Arguments: source; classes, joined by +; train and val, the names of the two splits; channels, 1 or
3; height and width of the network's input, needed if the images differ in size.
"""

from tinyjax.config import parse_arg
from tinyjax.defaults import detector
from tinyjax.errors import UserError


def get_config(arg=None):
    arg = parse_arg(
        arg, source="", classes="", train="train", val="val", channels=1, height=0, width=0
    )
    for name in ("source", "classes"):
        if not arg[name]:
            raise UserError(f"configs/coco.py: give {name}, as in coco.py:source=a.zip,classes=b+c")
    config = detector()
    config.data.format = "coco"
    config.data.common = {
        "source": arg.source,
        "classes": tuple(arg.classes.split("+")),
        "channels": arg.channels,
        "size": (arg.height, arg.width) if arg.height and arg.width else None,
    }
    config.data.train = {"split": arg.train}
    config.data.suites = {"val": {"split": arg.val}}
    return config
