"""A tiny classification sweep for several processes, in float64 with SGD; see float64_train.py. The
argument is the folder of the images.
"""

from tests.configs import classifier


def get_config(arg=None):
    config = classifier.get_config(arg)
    config.model.dtype = "float64"
    config.batch = 8
    config.optimizer.name, config.optimizer.lr = "sgd", 0.002
    config.eval_every = 6
    return config


def get_hyper(hyper):
    return hyper.sweep("seed", range(2))
