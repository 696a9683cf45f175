"""Does the relative gradient norm after decoder probing predict which detectors lose under shift?

python -m tinyjax.study --config configs/studies/rgn.py --workdir runs/rgn

Run configs/studies/capacity.py and configs/studies/freezing.py first; arguments capacity and
freezing are their folders. All of their detectors are compared. freezing has probed the detectors
that start from Caltech-101 and are trained on all images. This study probes the other detectors:
those from scratch ("untrained"), and those trained on one side of a condition from either start
("probed-night" etc.). Further arguments, joined by commas: backbones, joined by +; seeds, number of
seeds; steps, as in capacity.
"""

from pathlib import Path

from tinyjax.config import definitions, parse_arg
from tinyjax.population import search_space as hyper
from tinyjax.study import init_points

CAPACITY = definitions(str(Path(__file__).with_name("capacity.py")), "get_study")


def get_study(arg, workdir):
    arg = parse_arg(
        arg, capacity="runs/capacity", freezing="runs/freezing", backbones=CAPACITY["BACKBONES"],
        seeds=3, steps=1200,
    )  # fmt: skip
    ladder = [
        hyper.sweep("model.backbone", arg.backbones.split("+")),
        hyper.sweep("seed", range(arg.seeds)),
    ]
    from_both = hyper.product([*ladder, init_points(f"{arg.capacity}/caltech101")])
    untrained = freeze_backbone(CAPACITY["hit_uav_config"](arg.steps // 3))
    stages = {
        "all": f"{arg.capacity}/all",
        **{name: f"{arg.freezing}/{name}" for name in ("frozen", "neck", "probed", "moved")},
        "untrained": (untrained, hyper.product(ladder), {"rgn": ()}),
    }
    for field, sides in CAPACITY["SIDES"]:
        side = next(iter(sides))
        stages[side] = f"{arg.capacity}/{side}"
        probe = freeze_backbone(CAPACITY["one_sided_config"](arg.steps // 3, field, sides))
        stages[f"probed-{side}"] = (probe, from_both, {"rgn": ()})
    return stages


def freeze_backbone(config):
    config.freeze = ("backbone",)
    return config
