"""ImageNet-1k for the MobileNetV3 ladder: the recipe of configs/imagenet_b.py, which is our own
choice here; what arXiv 2508.02927 trained this family by is not public.

python -m tinyjax.train --config configs/imagenet_s.py:backbone=mobilenetv3/s-3 --workdir runs/s-3

Arguments as there.
"""

from pathlib import Path

from tinyjax.config import load

B = Path(__file__).parent / "imagenet_b.py"


def get_config(arg=None):
    config = load(f"{B}:{arg}" if arg else str(B))
    if "backbone=" not in (arg or ""):
        config.model.backbone = "mobilenetv3/s-3"
    return config
