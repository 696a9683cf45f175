"""A tiny classification sweep: two sizes x two learning rates x two seeds. The argument is the
folder of the images.
"""

from tests.configs import classifier, sweep

get_hyper = sweep.get_hyper


def get_config(arg=None):
    config = classifier.get_config(arg)
    config.eval_every = 6
    return config
