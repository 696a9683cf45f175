"""Drones, airplanes, helicopters and birds against the sky, in infrared or visible light, at
320 x 256, tested in both.

python -m tinyjax.train --config configs/svanstrom.py --workdir runs/svanstrom

Arguments, joined by commas: light, ir (default) or rgb; backbone; steps; batch; lr; init, starting
weights (default: none); corrupt, benchmark or thermal: adds a suite of 100 images in the same light
that tinyjax.evaluate corrupts. Visible light is converted to gray, because infrared has no color.
"""

import os

from tinyjax.config import detector, parse_arg


def get_config(arg=None):
    config = detector()
    arg = parse_arg(
        arg, light="ir", backbone=config.model.backbone, steps=8000, batch=config.batch,
        lr=config.optimizer.lr, init="", corrupt="",
    )  # fmt: skip
    config.model.backbone, config.init = arg.backbone, arg.init
    root = os.environ.get("TINYJAX_DATA", "../shared/data")
    sources = {
        light: {"source": f"{root}/svanstrom_{light}/svanstrom_{light}.zip"}
        for light in ("ir", "rgb")
    }
    classes = ("airplane", "bird", "drone", "helicopter")
    config.data.format, config.data.common = "coco", {"classes": classes}
    config.data.train = {**sources[arg.light], "split": "train"}
    config.data.suites = {light: {**source, "split": "val"} for light, source in sources.items()}
    config.data.slices = {"distance_bin": ()}
    config.monitor = arg.light
    if arg.corrupt:
        corrupted = {**config.data.suites[arg.light], "corrupt": (arg.corrupt,), "limit": 100}
        config.data.suites[f"{arg.light}-corrupted"] = corrupted
    # Objects that are bright in infrared are dark against the sky in visible light.
    config.crop_size, config.augment.invert = (144, 144), 0.3
    config.schedule.steps, config.schedule.warmup = arg.steps, min(300, arg.steps // 12)
    config.batch, config.optimizer.lr, config.ema = arg.batch, arg.lr, 0.999
    config.save_every, config.eval_every = 1000, 2000
    return config
