"""A tiny sweep of two programs: two batch sizes x two seeds."""

from tests.configs import detector

get_config = detector.get_config


def get_hyper(hyper):
    return hyper.product([hyper.sweep("batch", [4, 2]), hyper.sweep("seed", range(2))])
