"""A tiny detection run with all features: synthetic scenes of 64 x 64 pixels, 6 steps."""

from tests.tiny_backbones import TINY
from tinyjax.config import detector


def get_config(arg=None, name="point"):
    """name: of the detector."""
    config = detector(name)
    config.model.backbone = TINY
    config.data.format = "synthetic"
    config.data.common = {"size": (64, 64)}
    config.data.train = {"n": 10}
    config.data.suites = {"val": {"n": 4, "seed": 1}, "day": {"n": 4, "seed": 1, "day": 1.0}}
    config.crop_size, config.batch = (64, 64), 4
    config.schedule.steps, config.schedule.warmup = 6, 2
    config.log_every, config.save_every, config.eval_every = 1, 3, 3
    config.optimizer.lr = 1e-3
    return config
