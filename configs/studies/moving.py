"""What should move when a small detector is fine-tuned: all of it, only what is new, or all of it,
held back?

python -m tinyjax.study --config configs/studies/moving.py --workdir runs/moving

After configs/studies/capacity.py, from whose classifiers all of them start, and whose fine-tuned
detectors are the first arm; capacity says where it is. On HIT-UAV, as many steps in every arm: all
moves ("all"); the backbone stands still ("frozen"); it stands still under a neck of 64 channels
that joins its levels three times ("neck"); what is new is trained for a third of the steps
("probed") and then all of it, with and without the pull by relative gradient norms of arXiv
2303.14744 ("moved"). Further arguments, joined by commas: backbones, joined by +; seeds, how many;
steps; strength, of the pull.
"""

from pathlib import Path

from tinyjax.config import definitions, parse_arg
from tinyjax.population import search_space as hyper

CAPACITY = definitions(str(Path(__file__).with_name("capacity.py")), "get_study")


def get_study(arg, workdir):
    arg = parse_arg(
        arg, capacity="runs/capacity", backbones=CAPACITY["SIX"], seeds=3, steps=1200, strength=10.0
    )
    ladder = hyper.product(
        [
            hyper.sweep("model.backbone", arg.backbones.split("+")),
            hyper.sweep("seed", range(arg.seeds)),
        ]
    )
    probing = arg.steps // 3
    probed, frozen, neck, moved = (
        CAPACITY["on_hit_uav"](steps)
        for steps in (probing, arg.steps, arg.steps, arg.steps - probing)
    )
    for config in (probed, frozen, neck):
        config.init, config.freeze = f"{arg.capacity}/caltech101", ("backbone",)
    neck.model.neck_width, neck.model.neck_repeats = 64, 3
    moved.init, moved.regularizer.name = str(workdir / "probed"), "rgn"
    pulls = hyper.sweep("regularizer.strength", [0.0, arg.strength])
    return {
        "all": f"{arg.capacity}/all",
        "frozen": (frozen, ladder),
        "neck": (neck, ladder),
        "probed": (probed, ladder, ()),
        "moved": (moved, hyper.product([ladder, pulls])),
    }
