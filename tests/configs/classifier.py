"""A tiny classification run: two classes of generated images, 6 steps. The argument is the folder
of the images.
"""

from tests.tiny_backbones import TINY
from tinyjax.config import classifier


def get_config(arg=None):
    config = classifier()
    config.model.backbone = TINY
    config.data.common = {"source": arg, "size": (32, 32), "channels": 1}
    config.data.train, config.data.suites = {"split": "train"}, {"val": {"split": "val"}}
    config.crop_size, config.batch = (32, 32), 4
    config.schedule.steps, config.schedule.warmup = 6, 2
    config.log_every, config.save_every, config.eval_every = 1, 3, 3
    return config
