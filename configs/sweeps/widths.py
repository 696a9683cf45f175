"""How small can a backbone be? The S ladder on the synthetic scenes of configs/quickstart.py.

python -m tinyjax.train --config configs/sweeps/widths.py --workdir runs/widths

Six sizes x two learning rates x two seeds: 24 networks in three programs, about ten minutes on two
cores. Argument: steps.
"""

from pathlib import Path

from tinyjax.config import load, parse_arg

QUICKSTART = Path(__file__).parent.parent / "quickstart.py"


def get_config(arg=None):
    arg = parse_arg(arg, steps=300)
    config = load(str(QUICKSTART))
    config.schedule.steps, config.eval_every = arg.steps, arg.steps
    return config


def get_hyper(hyper):
    return hyper.product(
        [
            hyper.sweep("model.backbone", [f"mobilenetv3/s-{k}" for k in range(1, 7)]),
            hyper.sweep("optimizer.lr", [1e-3, 4e-3]),
            hyper.sweep("seed", range(2)),
        ]
    )
