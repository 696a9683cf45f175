"""A tiny classification sweep: two sizes x two seeds, from scratch and from the sweep in
$TINY_STARTS. The argument is the folder of the images.
"""

import os

from tests.configs import sweep_classifier
from tests.tiny_backbones import TINY, TINY_WIDE

get_config = sweep_classifier.get_config


def get_hyper(hyper):
    return hyper.product(
        [
            hyper.sweep("model.backbone", [TINY, TINY_WIDE]),
            hyper.sweep("init", ["", os.environ["TINY_STARTS"]]),
            hyper.sweep("seed", range(2)),
        ]
    )
