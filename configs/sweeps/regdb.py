"""RegDB as published: ten trials, one network each, and their mean.

python -m tinyjax.train --workdir runs/regdb --config \
    configs/sweeps/regdb.py:backbone=mobilenetv3/s-1,init=runs/pretrained/averages/paths-1.safetensors
python -m tinyjax.evaluate --workdir runs/regdb

The evaluation prints the means over the trials with 95 % intervals, and writes them to
evaluations/last-trials.csv. Arguments: those of configs/toplight/regdb.py but trial.
"""

from pathlib import Path

from tinyjax.config import load

REGDB = Path(__file__).parent.parent / "toplight" / "regdb.py"


def get_config(arg=None):
    return load(f"{REGDB}:{arg}" if arg else str(REGDB))


def get_hyper(hyper):
    return hyper.zipit(
        [hyper.sweep("data.common.trial", range(1, 11)), hyper.sweep("seed", range(10))]
    )
