"""A tiny classification sweep: two sizes x two seeds, from scratch and from the sweep in
$TINY_STARTS. The argument is the folder of the images.
"""

import os

from tests.configs import sweep_classifier

get_config = sweep_classifier.get_config


def get_hyper(hyper):
    return hyper.product(
        [
            hyper.sweep("model.backbone", ["mobilenetv3/s-6", "mobilenetv3/s-5"]),
            hyper.sweep("init", ["", os.environ["TINY_STARTS"]]),
            hyper.sweep("seed", range(2)),
        ]
    )
