"""RegDB: people in visible and thermal images, one network for each of ten trials.

python -m tinyjax.train --config configs/toplight/regdb.py:trial=1 --workdir runs/regdb/1

The published result is the mean of the last weights over the trials 1 to 10, each trained on its
own: configs/sweeps/regdb.py trains all. Both directions are scored. Arguments: source, the folder
RegDB; trial; val, fraction of the training identities that select the best weights, by default
none; backbone, init, paths, fdr, height, width, identities, batch and steps as in own.py. 5,200
steps are the 80 epochs of AGW.
"""

import os
from pathlib import Path

from tinyjax.config import format_arg, load, parse_arg

OWN = Path(__file__).with_name("own.py")


def get_config(arg=None):
    root = os.environ.get("TINYJAX_DATA", "../shared/data")
    arg = parse_arg(
        arg, source=f"{root}/RegDB", trial=1, val=0.0, backbone="mobilenetv3/large", init="",
        paths=1, fdr=5, height=288, width=144, identities=8, batch=64, steps=5200,
    )  # fmt: skip
    recipe = {name: value for name, value in arg.items() if name != "trial"}
    config = load(f"{OWN}:{format_arg(format='regdb', **recipe)}").unlock()
    config.data.common["trial"] = arg.trial
    return config
