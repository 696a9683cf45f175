"""SYSU-MM01: people, found by infrared images among visible ones.

python -m tinyjax.train --workdir runs/sysu --config \
    configs/toplight/sysu.py:backbone=mobilenetv3/s-1,init=runs/pretrained/averages/paths-1.safetensors

Arguments: source, the folder SYSU-MM01; full, train on the validation identities, too, as published
results do: the last weights are then the result; backbone, init, paths, fdr, identities, batch and
steps as in own.py. 55,700 steps are the 80 epochs of AGW.
"""

import os
from pathlib import Path

from tinyjax.config import format_arg, load, parse_arg

OWN = Path(__file__).with_name("own.py")


def get_config(arg=None):
    root = os.environ.get("TINYJAX_DATA", "../shared/data")
    arg = parse_arg(
        arg, source=f"{root}/SYSU-MM01", full=False, backbone="mobilenetv3/large", init="", paths=1,
        fdr=5, identities=8, batch=64, steps=55700,
    )  # fmt: skip
    recipe = {name: value for name, value in arg.items() if name != "full"}
    config = load(f"{OWN}:{format_arg(format='sysu', val=0.0, **recipe)}").unlock()
    if arg.full:
        config.data.train = {"split": "trainval"}
    else:  # the data set has validation identities
        config.data.suites["val"], config.monitor = {"split": "val"}, "val"
    return config
