"""As detector.py, with the detector and the neck in the argument: faster_rcnn,nasfpn. Two-stage
detectors have few candidates and narrow layers.
"""

from tests.configs import detector
from tinyjax.config import with_fields

SMALL = {
    "rpn.sample_size": 32,
    "proposals.max_proposals": 16,
    "proposals.pre_nms_top_k": 32,
    "roi.width": 16,
    "roi.size": 3,
    "roi.sample_size": 16,
}


def get_config(arg):
    name, neck = arg.split(",")
    config = detector.get_config(name=name)
    small = {path: value for path, value in SMALL.items() if path.split(".")[0] in config}
    return with_fields(config, {"model.neck": neck, "model.neck_width": 16, **small})


def two_stage_config(name, **fields):
    """A two-stage detector with its default neck. fields: changes of the config."""
    config = detector.get_config(name=name)
    return with_fields(config, {"model.neck_width": 16, **SMALL, **fields})
