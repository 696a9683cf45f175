"""How small can a backbone get on thermal images, and does pretraining still help there when
conditions change?

python -m tinyjax.study --config configs/studies/capacity.py --workdir runs/capacity

Six backbones x seeds x {scratch, Caltech-101} on HIT-UAV: on all of it, and on one side of it
alone (night, low, or slanted), tested on that side and on the other. Arguments, joined by commas:
backbones, joined by +; seeds, how many; pretraining and steps, how long each trains.
"""

from pathlib import Path

from tinyjax.config import load, parse_arg
from tinyjax.population import search_space as hyper
from tinyjax.study import starts

CONFIGS = Path(__file__).parent.parent
SIX = "+".join(
    [*(f"mobilenetv3/s-{k}" for k in (1, 3, 5)), *(f"efficientnet/b-{k}" for k in (2, 4, 6))]
)
# Field of an image, and its sides: the name of each, and what it says. Training is on the first.
SIDES = (
    ("time_of_day", {"night": "night", "day": "day"}),
    ("altitude_m", {"low": (60, 81), "high": (100, 131)}),
    ("camera_angle_deg", {"slanted": (30, 51), "steep": (70, 91)}),
)


def get_study(arg, workdir):
    arg = parse_arg(arg, backbones=SIX, seeds=3, pretraining=4000, steps=1200)
    ladder = [
        hyper.sweep("model.backbone", arg.backbones.split("+")),
        hyper.sweep("seed", range(arg.seeds)),
    ]
    two = hyper.product([*ladder, starts(workdir / "caltech101")])
    caltech = f"{CONFIGS / 'caltech101.py'}:channels=1,batch=32,steps={arg.pretraining}"
    stages = {
        "caltech101": (load(caltech), hyper.product(ladder)),
        "all": (on_hit_uav(arg.steps), two),
    }
    for field, sides in SIDES:
        stages[next(iter(sides))] = (one_sided(arg.steps, field, sides), two)
    return stages


def on_hit_uav(steps):
    config = load(f"{CONFIGS / 'hit_uav.py'}:batch=8,lr=0.016,steps={steps}").unlock()
    config.eval_every = steps
    # Both sides of each condition, and what lies between them.
    config.data.slices = {
        "time_of_day": (), "altitude_m": (60, 81, 100, 131), "camera_angle_deg": (30, 51, 70, 91)
    }  # fmt: skip
    return config


def one_sided(steps, field, sides):
    """Trained on the first side; tested on both, and on the second in other sessions, too."""
    config = on_hit_uav(steps)
    (own, here), (other, there) = sides.items()
    config.data.train["where"] = {field: here}
    config.data.suites = {
        own: {"split": "val", "where": {field: here}},
        other: {"split": "val", "where": {field: there}},
        f"{other}-elsewhere": {"split": "shift", "where": {field: there}},
    }
    config.data.slices, config.monitor = {}, own
    return config
