"""ImageNet-1k for the MobileNetV3 ladder, by the recipe of configs/imagenet_b.py. This is our
choice: the recipe of arXiv 2508.02927 for this family is not public.

python -m tinyjax.train --config configs/imagenet_s.py:backbone=mobilenetv3/s-3 --workdir runs/s-3

Arguments as in configs/imagenet_b.py.
"""

from pathlib import Path

from tinyjax.config import load

IMAGENET_B = Path(__file__).parent / "imagenet_b.py"


def get_config(arg=None):
    config = load(f"{IMAGENET_B}:{arg}" if arg else str(IMAGENET_B))
    if "backbone=" not in (arg or ""):
        config.model.backbone = "mobilenetv3/s-3"
    return config
