"""A tiny classification sweep: two sizes x three seeds, each seed with its own learning rate. The
argument is the folder of the images.
"""

from tests.configs import classifier
from tests.tiny_backbones import TINY, TINY_WIDE


def get_config(arg=None):
    config = classifier.get_config(arg)
    config.eval_every = 6
    return config


def get_hyper(hyper):
    seeds = [hyper.sweep("config.seed", range(3)), hyper.sweep("optimizer.lr", [2e-3, 1e-3, 3e-3])]
    return hyper.product([hyper.sweep("model.backbone", [TINY, TINY_WIDE]), hyper.zipit(seeds)])
