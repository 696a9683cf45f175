"""How strong should the regularizer of a fine-tuned backbone be? After decoder probing, on HIT-UAV.

python -m tinyjax.train --workdir runs/probed \
    --config configs/hit_uav.py:init=runs/caltech101,freeze=backbone,steps=1500
python -m tinyjax.train --workdir runs/regularizer \
    --config configs/sweeps/regularizer.py:init=runs/probed

Mind the Backbone's regularizer at four strengths x two seeds: 8 networks in one program. Arguments:
init; backbone, the same as in `init`; steps.
"""

from pathlib import Path

from tinyjax.config import format_arg, load, parse_arg

HIT_UAV = Path(__file__).parent.parent / "hit_uav.py"


def get_config(arg=None):
    arg = parse_arg(arg, init="", backbone="mobilenetv3/s-2", steps=1500)
    config = load(f"{HIT_UAV}:{format_arg(**arg)}")
    config.regularizer.name, config.eval_every = "rgn", arg.steps
    return config


def get_hyper(hyper):
    return hyper.product(
        [hyper.sweep("regularizer.strength", [0.0, 0.1, 1.0, 10.0]), hyper.sweep("seed", range(2))]
    )
