"""A tiny sweep for several processes, in float64 with SGD; see float64_train.py."""

from tests.configs import detector


def get_config(arg=None):
    config = detector.get_config()
    config.model.dtype = "float64"
    config.batch = 8
    config.optimizer.name, config.optimizer.lr = "sgd", 0.002
    config.eval_every = 6
    return config


def get_hyper(hyper):
    return hyper.sweep("seed", range(2))
