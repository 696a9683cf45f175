"""The smallest sweep of four populations: patience keeps members apart, their program is one. A
config file.
"""

from tests.configs import detector

get_config = detector.get_config


def get_hyper(hyper):
    return hyper.product([hyper.sweep("patience", [2, 3, 4, 5]), hyper.sweep("seed", range(2))])
