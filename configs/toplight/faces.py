"""Faces in visible and near-infrared images: Oulu-CASIA or BUAA-VisNir, with LightCNN-29.

python -m tinyjax.train --config configs/toplight/faces.py:init=LightCNN_29Layers_V2.pth \
    --workdir runs/oulu

The first convolution exists twice. The scores include the verification rates. Recipe after DVG
(arXiv 1903.10203): SGD with a small rate, no triplet loss. Arguments: source, the folder; format,
oulu or buaa; backbone; init; identities, batch and steps.
"""

import os
from pathlib import Path

from tinyjax.config import format_arg, load, parse_arg

OWN = Path(__file__).with_name("own.py")


def get_config(arg=None):
    root = os.environ.get("TINYJAX_DATA", "../shared/data")
    arg = parse_arg(
        arg, source=f"{root}/oulu", format="oulu", backbone="lightcnn/29v2", init="", identities=10,
        batch=120, steps=1000,
    )  # fmt: skip
    config = load(f"{OWN}:{format_arg(val=0.0, fdr=0, height=128, width=128, **arg)}").unlock()
    config.data.common["channels"] = 1
    config.model.last_stride, config.model.pooling = 2, "mean"
    config.optimizer.lr, config.optimizer.backbone_lr_scale = 1e-2, 0.1
    config.optimizer.weight_decay, config.loss.triplet = 1e-4, 0.0
    config.score.verification = True
    return config
