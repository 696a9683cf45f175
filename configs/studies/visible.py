"""How does a small detector transfer from visible light to infrared, and back?

python -m tinyjax.study --config configs/studies/visible.py --workdir runs/visible

Run configs/studies/capacity.py first: half of the detectors start from its classifiers; argument
capacity is its folder. Six backbones x seeds x {scratch, Caltech-101}, trained in infrared ("ir")
and in visible light ("rgb"), each tested in both, and under the corruption benchmark in the light
it was trained in. Further arguments, joined by commas: backbones, joined by +; seeds, number of
seeds; steps.
"""

from pathlib import Path

from tinyjax.config import definitions, load, parse_arg
from tinyjax.population import search_space as hyper
from tinyjax.study import init_points

CAPACITY = definitions(str(Path(__file__).with_name("capacity.py")), "get_study")
SVANSTROM = Path(__file__).parent.parent / "svanstrom.py"


def get_study(arg, workdir):
    arg = parse_arg(
        arg, capacity="runs/capacity", backbones=CAPACITY["BACKBONES"], seeds=3, steps=1200
    )
    members = hyper.product(
        [
            hyper.sweep("model.backbone", arg.backbones.split("+")),
            hyper.sweep("seed", range(arg.seeds)),
            init_points(f"{arg.capacity}/caltech101"),
        ]
    )
    return {light: (svanstrom_config(light, arg.steps), members) for light in ("ir", "rgb")}


def svanstrom_config(light, steps):
    args = f"light={light},batch=8,lr=0.016,steps={steps},corrupt=benchmark"
    config = load(f"{SVANSTROM}:{args}").unlock()
    config.eval_every = steps
    return config
