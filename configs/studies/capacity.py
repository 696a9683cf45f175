"""How small can a backbone be on thermal images, and does pretraining still help at that size when
conditions change?

python -m tinyjax.study --config configs/studies/capacity.py --workdir runs/capacity

Six backbones x seeds x {scratch, Caltech-101} on HIT-UAV: trained on all images, and on one side of
a condition (night, low or slanted) and tested on both sides. Arguments, joined by commas:
backbones, joined by +; seeds, number of seeds; pretraining, number of steps on Caltech-101; steps,
on HIT-UAV.
"""

from pathlib import Path

from tinyjax.config import load, parse_arg
from tinyjax.population import search_space as hyper
from tinyjax.study import init_points

CONFIGS = Path(__file__).parent.parent
BACKBONES = "+".join(
    [*(f"mobilenetv3/s-{k}" for k in (1, 3, 5)), *(f"efficientnet/b-{k}" for k in (2, 4, 6))]
)
# Field of an image, and its two sides: name -> value or range. Training is on the first side.
SIDES = (
    ("time_of_day", {"night": "night", "day": "day"}),
    ("altitude_m", {"low": (60, 81), "high": (100, 131)}),
    ("camera_angle_deg", {"slanted": (30, 51), "steep": (70, 91)}),
)


def get_study(arg, workdir):
    arg = parse_arg(arg, backbones=BACKBONES, seeds=3, pretraining=4000, steps=1200)
    ladder = [
        hyper.sweep("model.backbone", arg.backbones.split("+")),
        hyper.sweep("seed", range(arg.seeds)),
    ]
    from_both = hyper.product([*ladder, init_points(workdir / "caltech101")])
    caltech = f"{CONFIGS / 'caltech101.py'}:channels=1,batch=32,steps={arg.pretraining}"
    stages = {
        "caltech101": (load(caltech), hyper.product(ladder)),
        "all": (hit_uav_config(arg.steps), from_both),
    }
    for field, sides in SIDES:
        stages[next(iter(sides))] = (one_sided_config(arg.steps, field, sides), from_both)
    return stages


def hit_uav_config(steps):
    config = load(f"{CONFIGS / 'hit_uav.py'}:batch=8,lr=0.016,steps={steps}").unlock()
    config.eval_every = steps
    # Slices for both sides of each condition, and for the values between them.
    config.data.slices = {
        "time_of_day": (), "altitude_m": (60, 81, 100, 131), "camera_angle_deg": (30, 51, 70, 91)
    }  # fmt: skip
    return config


def one_sided_config(steps, field, sides):
    """Return a config that trains on the first side. It tests on both sides, and on the second
    side also in other sessions.
    """
    config = hit_uav_config(steps)
    (train_side, train_range), (other_side, other_range) = sides.items()
    config.data.train["where"] = {field: train_range}
    config.data.suites = {
        train_side: {"split": "val", "where": {field: train_range}},
        other_side: {"split": "val", "where": {field: other_range}},
        f"{other_side}-elsewhere": {"split": "shift", "where": {field: other_range}},
    }
    config.data.slices, config.monitor = {}, train_side
    return config
