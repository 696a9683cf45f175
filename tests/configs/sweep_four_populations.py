"""A tiny sweep of four populations, which differ in patience and share one compiled program."""

from tests.configs import detector

get_config = detector.get_config


def get_hyper(hyper):
    return hyper.product([hyper.sweep("patience", [2, 3, 4, 5]), hyper.sweep("seed", range(2))])
