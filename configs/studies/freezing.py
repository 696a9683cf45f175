"""What should be trained when a small detector is fine-tuned: everything, only the new layers, or
everything with a regularizer?

python -m tinyjax.study --config configs/studies/freezing.py --workdir runs/freezing

Run configs/studies/capacity.py first: all arms start from its classifiers, and its fine-tuned
detectors are the first arm; argument capacity is its folder. The arms train on HIT-UAV for the same
number of steps: everything ("all"); a frozen backbone ("frozen"); a frozen backbone with a neck of
64 channels and three repeats ("neck"); only the new layers for a third of the steps ("probed"),
then everything, with and without the regularizer by relative gradient norms of arXiv 2303.14744
("moved"). Further arguments, joined by commas: backbones, joined by +; seeds, number of seeds;
steps; strength, of the regularizer.
"""

from pathlib import Path

from tinyjax.config import definitions, parse_arg
from tinyjax.population import search_space as hyper

CAPACITY = definitions(str(Path(__file__).with_name("capacity.py")), "get_study")


def get_study(arg, workdir):
    arg = parse_arg(
        arg,
        capacity="runs/capacity",
        backbones=CAPACITY["BACKBONES"],
        seeds=3,
        steps=1200,
        strength=10.0,
    )
    ladder = hyper.product(
        [
            hyper.sweep("model.backbone", arg.backbones.split("+")),
            hyper.sweep("seed", range(arg.seeds)),
        ]
    )
    probing_steps = arg.steps // 3
    probed, frozen, neck, moved = (
        CAPACITY["hit_uav_config"](steps)
        for steps in (probing_steps, arg.steps, arg.steps, arg.steps - probing_steps)
    )
    for config in (probed, frozen, neck):
        config.init, config.freeze = f"{arg.capacity}/caltech101", ("backbone",)
    neck.model.neck_width, neck.model.neck_repeats = 64, 3
    moved.init, moved.regularizer.name = str(workdir / "probed"), "rgn"
    strengths = hyper.sweep("regularizer.strength", [0.0, arg.strength])
    return {
        "all": f"{arg.capacity}/all",
        "frozen": (frozen, ladder),
        "neck": (neck, ladder),
        "probed": (probed, ladder, {"rgn": ()}),
        "moved": (moved, hyper.product([ladder, strengths])),
    }
