"""Visible-infrared recognition on your own images, with the recipe of docs/recognition.md.

python -m tinyjax.train --config configs/toplight/own.py:source=people --workdir runs/people

Arguments, joined by commas: source, a folder or zip with visible/<identity>/ and
infrared/<identity>/; format, of another layout; backbone; init, starting weights (a pretraining run
of pretrain.py, its averaged paths, or a classifier); paths, blocks that exist twice; fdr, block
that FDR follows, 0 for none; height, width; identities, per step; batch; steps; val, fraction of
the training identities (at least four) that select the best weights, unless the folder names its
own in val_id.txt; 0: none, then the last weights are the result; capture, pattern of images of one
moment.
"""

from tinyjax.config import parse_arg, recognizer
from tinyjax.errors import UserError


def get_config(arg=None):
    arg = parse_arg(
        arg, source="", format="pairs", backbone="mobilenetv3/s-1", init="", paths=1, fdr=5,
        height=288, width=144, identities=8, batch=64, steps=5200, val=0.1, capture="",
    )  # fmt: skip
    if not arg.source:
        raise UserError("configs/toplight/own.py: give source, as in own.py:source=people.zip")
    config = recognizer()
    config.model.backbone, config.init = arg.backbone, arg.init
    config.model.path_blocks, config.fdr.block = arg.paths, arg.fdr
    config.data.format, config.crop_size = arg.format, (arg.height, arg.width)
    config.data.common = {"source": arg.source, "size": (arg.height, arg.width)}
    if arg.capture:
        config.data.common["capture"] = arg.capture
    config.data.train = {"split": "train"}
    config.data.suites = {"val": {"split": "val"}, "test": {"split": "test"}}
    if arg.val:
        config.data.common["val_fraction"] = arg.val
    else:
        del config.data.suites["val"]
        config.monitor = "test"
    config.batch, config.sampler.identities = arg.batch, arg.identities
    # AGW's (arXiv 2001.04193), whose 80 epochs have 10 of warm-up and steps after 20 and 50
    optimizer = config.optimizer
    optimizer.name, optimizer.lr, optimizer.weight_decay = "sgd", 0.1, 5e-4
    optimizer.backbone_lr_scale = 0.1 if arg.init else 1.0
    config.schedule.steps, config.schedule.warmup = arg.steps, arg.steps // 8
    config.schedule.shape, config.schedule.milestones = "steps", (0.25, 0.625)
    config.eval_every, config.save_every = max(1, arg.steps // 10), max(1, arg.steps // 10)
    return config
