"""The smallest sweep of four programs. A config file."""

from tests import tiny_config

get_config = tiny_config.get_config


def get_hyper(hyper):
    return hyper.product([hyper.sweep("batch", [2, 3, 4, 5]), hyper.sweep("seed", range(2))])
