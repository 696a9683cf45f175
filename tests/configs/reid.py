"""A tiny run of visible-infrared recognition: synthetic people, 6 steps."""

from tests.tiny_backbones import TINY
from tinyjax.config import recognizer


def get_config(arg=None):
    config = recognizer()
    config.model.backbone = TINY
    config.data.format, config.data.common = "synthetic", {"size": (32, 16), "per_camera": (1, 1)}
    config.data.train = {"n": 6}
    config.data.suites = {"val": {"n": 4, "split": "test"}}
    config.crop_size, config.batch, config.sampler.identities = (32, 16), 8, 2
    config.augment.pad, config.loss.triplet_start = 2.0, 0.5
    config.schedule.steps, config.schedule.warmup = 6, 2
    config.log_every, config.save_every, config.eval_every = 1, 3, 3
    return config
