"""Run folders of recognition and pretraining with initial weights."""

from pathlib import Path

from ml_collections import ConfigDict

from tests.tiny_backbones import TINY
from tests.untrained import write_initial_weights
from tinyjax.config import pretraining, recognizer
from tinyjax.core import Split
from tinyjax.data.synthetic import identities
from tinyjax.recognition.augmentation import SWITCHES
from tinyjax.tasks import get_task

SIZE = (64, 32)
INPUTS = {"image": (*SIZE, 3), "modality": ()}


def recognition_config(path_blocks: int = 1) -> ConfigDict:
    config = recognizer()
    config.model.backbone, config.model.path_blocks = TINY, path_blocks
    config.data.format, config.data.common = "synthetic", {"size": SIZE, "per_camera": (1, 1)}
    config.data.train = {"n": 4, "split": "train"}
    config.data.suites = {"val": {"n": 3, "split": "test"}}
    config.crop_size, config.batch, config.sampler.identities = SIZE, 8, 2
    return config


def pretraining_config() -> ConfigDict:
    config = pretraining()
    config.model.backbone, config.crop_size, config.batch = TINY, SIZE, 4
    for name in SWITCHES:  # augmentation takes most of the compile time
        if name in config.augment:
            config.augment[name] = 0.0
    return config


def write_recognition_run(folder: Path, path_blocks: int = 1, split: str = "train") -> Path:
    """A run of `recognition_config` on four identities of a split."""
    config = recognition_config(path_blocks)
    config.data.train.split = split
    training = training_split(config)
    trained_on = [get_task("reid").identity_record(training)]
    return write_initial_weights(folder, config, training.classes, INPUTS, trained_on=trained_on)


def training_split(config: ConfigDict) -> Split:
    return get_task("reid").load(config.data, config.data.train)


def write_pretraining_run(folder: Path) -> Path:
    classes, inputs = ("ant", "bee", "cat"), {"image": (*SIZE, 3)}
    return write_initial_weights(folder, pretraining_config(), classes, inputs)


def people(n: int = 3):
    """Visible and infrared images of new identities, uint8 [N, 64, 32, 3], in the same order."""
    split = identities.load(n, "test", (1, 1), SIZE)
    modality = split.inputs["modality"]
    return tuple(split.inputs["image"][modality == k] for k in (0, 1))
