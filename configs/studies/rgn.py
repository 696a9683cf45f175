"""Does the relative gradient norm after decoder probing say who loses under shift?

python -m tinyjax.study --config configs/studies/rgn.py --workdir runs/rgn

After configs/studies/capacity.py and configs/studies/moving.py, all of whose detectors are judged;
arguments capacity and moving say where they are. moving probed what starts from Caltech-101 and is
trained on all images. Here the others are probed: what starts from scratch ("untrained"), and what
is trained on one side of a condition alone, from either start ("probed-night" and so on).
Further arguments, joined by commas: backbones, joined by +; seeds, how many; steps of capacity.
"""

from pathlib import Path

from tinyjax.config import definitions, parse_arg
from tinyjax.population import search_space as hyper
from tinyjax.study import starts

CAPACITY = definitions(str(Path(__file__).with_name("capacity.py")), "get_study")


def get_study(arg, workdir):
    arg = parse_arg(
        arg, capacity="runs/capacity", moving="runs/moving", backbones=CAPACITY["SIX"], seeds=3,
        steps=1200,
    )  # fmt: skip
    ladder = [
        hyper.sweep("model.backbone", arg.backbones.split("+")),
        hyper.sweep("seed", range(arg.seeds)),
    ]
    two = hyper.product([*ladder, starts(f"{arg.capacity}/caltech101")])
    stages = {
        "all": f"{arg.capacity}/all",
        **{name: f"{arg.moving}/{name}" for name in ("frozen", "neck", "probed", "moved")},
        "untrained": (probing(CAPACITY["on_hit_uav"](arg.steps // 3)), hyper.product(ladder), ()),
    }
    for field, sides in CAPACITY["SIDES"]:
        side = next(iter(sides))
        stages[side] = f"{arg.capacity}/{side}"
        probe = probing(CAPACITY["one_sided"](arg.steps // 3, field, sides))
        stages[f"probed-{side}"] = (probe, two, ())
    return stages


def probing(config):
    config.freeze = ("backbone",)
    return config
