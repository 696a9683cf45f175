"""The smallest sweep of several programs: two batches x two seeds. A config file."""

from tests.configs import detector

get_config = detector.get_config


def get_hyper(hyper):
    return hyper.product([hyper.sweep("batch", [4, 2]), hyper.sweep("seed", range(2))])
