"""Should the backbone be frozen, and with which neck? Detectors on HIT-UAV from a classifier.

python -m tinyjax.train --config configs/sweeps/frozen.py:init=runs/caltech101 --workdir runs/frozen

Backbone frozen or not x neck with one or three repeats x three seeds: 12 networks in four programs.
Arguments: init; backbone, the same as in `init`; steps.
"""

from pathlib import Path

from tinyjax.config import format_arg, load, parse_arg

HIT_UAV = Path(__file__).parent.parent / "hit_uav.py"


def get_config(arg=None):
    arg = parse_arg(arg, init="", backbone="mobilenetv3/s-2", steps=1500)
    config = load(f"{HIT_UAV}:{format_arg(**arg)}")
    config.eval_every = arg.steps
    return config


def get_hyper(hyper):
    return hyper.product(
        [
            hyper.sweep("freeze", [(), ("backbone",)]),
            hyper.sweep("model.neck_repeats", [1, 3]),
            hyper.sweep("seed", range(3)),
        ]
    )
