"""A tiny sweep: two sizes x two learning rates x two seeds."""

from tests.configs import detector
from tests.tiny_backbones import TINY, TINY_WIDE


def get_config(arg=None):
    config = detector.get_config()
    config.eval_every = 6
    return config


def get_hyper(hyper):
    return hyper.product(
        [
            hyper.sweep("model.backbone", [TINY, TINY_WIDE]),
            hyper.sweep("optimizer.lr", [1e-3, 2e-3]),
            hyper.sweep("config.seed", range(2)),
        ]
    )
