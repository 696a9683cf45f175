"""The smallest sweep: two sizes, two rates of learning, two seeds. A config file; its argument is
the higher rate.
"""

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
