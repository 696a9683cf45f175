"""As detector_steps.py, for recognition and its pretraining.

    python -m tests.population.recognition_steps TASK IMAGES

IMAGES: a folder of classes, for pretraining.
"""

import json
import sys

from tests.configs import pretrain, reid
from tests.population.detector_steps import FIELDS, LADDERS, STEPS, compare
from tinyjax import config as configs

FAMILIES = {"reid": "mobilenetv3", "pretrain": "efficientnet"}


def main(task, images):
    config = {"reid": reid, "pretrain": pretrain}[task].get_config(images)
    schedule = {"schedule.steps": STEPS, "schedule.warmup": 0, "schedule.final_lr_scale": 1.0}
    config = configs.with_fields(config, {**FIELDS, **schedule})
    print(json.dumps(compare(config, *LADDERS[FAMILIES[task]])))


if __name__ == "__main__":
    main(*sys.argv[1:])
