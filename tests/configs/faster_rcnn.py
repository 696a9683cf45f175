"""A tiny run of Faster R-CNN, which draws random samples of anchors and RoIs."""

from tests.configs import detectors


def get_config(arg=None):
    return detectors.get_config("faster_rcnn,nasfpn")
