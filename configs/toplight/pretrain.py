"""Task-oriented pretraining (TOPLight): two views of each image, as of two cameras.

python -m tinyjax.train --config configs/toplight/pretrain.py:init=runs/caltech101 \
    --workdir runs/pretrained
python -m tinyjax.average --workdir runs/pretrained --path-blocks 1

Start from a classifier in color. The second command averages the copies of blocks 2 to 4 and leaves
block 1 double; fine-tune from the file that it writes, see docs/recognition.md. Arguments: source,
a folder of classes with train and another split, by default Caltech-101; test, the name of that
split; size, of the images; backbone; init; paths; steps; batch; lr. Switches of the paper's Table
3: consistency, domain and task (the changes of color and texture).
"""

import os

from tinyjax.config import parse_arg, pretraining

COLOR_AND_TEXTURE = (
    *("jitter", "channel_shuffle", "rgb_shift"),
    *("infrared_gray", "sharpen", "defocus", "jpeg"),
)


def get_config(arg=None):
    root = os.environ.get("TINYJAX_DATA", "../shared/data")
    arg = parse_arg(
        arg, source=f"{root}/caltech101_s96/caltech101_s96.zip", test="test", size=96,
        backbone="mobilenetv3/s-1", init="", paths=4, steps=4000, batch=64, lr=0.002,
        consistency=1.0, domain=0.1, task=True,
    )  # fmt: skip
    config = pretraining()
    config.model.backbone, config.model.path_blocks, config.init = arg.backbone, arg.paths, arg.init
    config.data.common = {"source": arg.source, "size": (arg.size, arg.size), "channels": 3}
    config.data.train, config.data.suites = {"split": "train"}, {"test": {"split": arg.test}}
    config.monitor, config.crop_size = "test", (arg.size, arg.size)
    config.batch, config.schedule.steps, config.optimizer.lr = arg.batch, arg.steps, arg.lr
    config.loss.consistency, config.loss.domain = arg.consistency, arg.domain
    if not arg.task:
        for name in COLOR_AND_TEXTURE:
            config.augment[name] = 0.0
    return config
