"""A tiny run of task-oriented pretraining on two classes of generated images, 6 steps. The argument
is the folder of the images.
"""

from tests.tiny_backbones import TINY
from tinyjax.config import pretraining


def get_config(arg=None):
    config = pretraining()
    config.model.backbone = TINY
    config.data.common = {"source": arg, "size": (32, 32), "channels": 3}
    config.data.train, config.data.suites = {"split": "train"}, {"val": {"split": "val"}}
    config.crop_size, config.batch, config.loss.feature_consistency = (32, 32), 4, 0.1
    config.schedule.steps, config.schedule.warmup = 6, 2
    config.log_every, config.save_every, config.eval_every = 1, 3, 3
    return config
