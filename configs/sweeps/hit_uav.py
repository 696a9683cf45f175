"""How small can a backbone be on real infrared images? The S ladder on HIT-UAV.

python -m tinyjax.train --config configs/sweeps/hit_uav.py --workdir runs/sweep_hit_uav

Six sizes x four seeds, from scratch: 24 networks. Arguments as in configs/hit_uav.py; without
arguments, steps is 1500.
"""

from pathlib import Path

from tinyjax.config import load

HIT_UAV = Path(__file__).parent.parent / "hit_uav.py"


def get_config(arg=None):
    config = load(f"{HIT_UAV}:{arg or 'steps=1500'}")
    config.eval_every = config.schedule.steps
    return config


def get_hyper(hyper):
    return hyper.product(
        [
            hyper.sweep("model.backbone", [f"mobilenetv3/s-{k}" for k in range(1, 7)]),
            hyper.sweep("seed", range(4)),
        ]
    )
