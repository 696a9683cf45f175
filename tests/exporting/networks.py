"""Networks with initial weights, which are exported in every format."""

import tinyjax
from tests.configs import detector
from tests.tiny_backbones import MINIS
from tests.untrained import CLASSES, write_initial_weights
from tinyjax import config as configs


def load_classifier(family, folder):
    """A classifier of a family of backbones, for images of 64 x 48."""
    config = configs.classifier()
    config.model.backbone = MINIS[family]
    channels = 1 if family == "lightcnn" else 3
    inputs = {"image": (64, 48, channels)}
    return tinyjax.load(write_initial_weights(folder, config, CLASSES, inputs))


def load_detector(name, folder):
    """A detector for gray images of 64 x 64."""
    config = detector.get_config(name=name)
    return tinyjax.load(write_initial_weights(folder, config, CLASSES, {"image": (64, 64, 1)}))
