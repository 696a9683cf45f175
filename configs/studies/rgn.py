"""Does the relative gradient norm after decoder probing say who loses under shift?

python -m tinyjax.study --config configs/studies/rgn.py --workdir runs/rgn

After configs/studies/capacity.py and configs/studies/moving.py, whose detectors are judged;
arguments capacity and moving say where they are. Backbones that nothing was loaded into were not
probed there and are probed here ("untrained"), which makes detectors of them that are judged, too.
Further arguments, joined by commas: backbones, joined by +;
seeds, how many; steps of capacity.
"""

from pathlib import Path

from tinyjax.config import names, parse_arg
from tinyjax.population import space as hyper

CAPACITY = names(str(Path(__file__).with_name("capacity.py")), "get_study")


def get_study(arg, workdir):
    arg = parse_arg(
        arg, capacity="runs/capacity", moving="runs/moving", backbones=CAPACITY["SIX"], seeds=3,
        steps=1200,
    )  # fmt: skip
    probed = CAPACITY["on_hit_uav"](arg.steps // 3)
    probed.freeze = ("backbone",)
    ladder = [
        hyper.sweep("model.backbone", arg.backbones.split("+")),
        hyper.sweep("seed", range(arg.seeds)),
    ]
    return {
        "all": f"{arg.capacity}/all",
        **{name: f"{arg.moving}/{name}" for name in ("frozen", "neck", "probed", "moved")},
        "untrained": (probed, hyper.product(ladder), ()),
    }
