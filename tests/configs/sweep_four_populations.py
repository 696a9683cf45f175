"""A tiny classification sweep of four populations, which differ in patience. The argument is the
folder of the images.
"""

from tests.configs import classifier

get_config = classifier.get_config


def get_hyper(hyper):
    return hyper.product([hyper.sweep("patience", [2, 3, 4, 5]), hyper.sweep("seed", range(2))])
