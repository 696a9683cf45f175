"""A tiny sweep: two sizes x two learning rates x two seeds."""

from tests.configs import detector


def get_config(arg=None):
    config = detector.get_config()
    config.eval_every = 6
    return config


def get_hyper(hyper):
    return hyper.product(
        [
            hyper.sweep("model.backbone", ["mobilenetv3/s-6", "mobilenetv3/s-5"]),
            hyper.sweep("optimizer.lr", [1e-3, 2e-3]),
            hyper.sweep("config.seed", range(2)),
        ]
    )
