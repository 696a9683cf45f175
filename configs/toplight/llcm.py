"""LLCM: people in visible and near-infrared images, by night.

python -m tinyjax.train --config configs/toplight/llcm.py --workdir runs/llcm

Both directions of the paper are scored. Arguments: source, the folder LLCM; val, fraction of the
training identities that select the best weights, by default none; backbone, init, paths, fdr,
identities, batch and steps as in own.py.
"""

import os
from pathlib import Path

from tinyjax.config import format_arg, load, parse_arg

OWN = Path(__file__).with_name("own.py")


def get_config(arg=None):
    root = os.environ.get("TINYJAX_DATA", "../shared/data")
    arg = parse_arg(
        arg, source=f"{root}/LLCM", val=0.0, backbone="mobilenetv3/large", init="", paths=1, fdr=5,
        identities=8, batch=64, steps=40000,
    )  # fmt: skip
    return load(f"{OWN}:{format_arg(format='llcm', **arg)}")
