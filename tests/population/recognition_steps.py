"""As detector_steps.py, for recognition and its pretraining.

    python -m tests.population.recognition_steps TASK IMAGES

IMAGES: a folder of classes, for pretraining.
"""

import json
import sys

from tests.configs import pretrain, reid
from tests.population.detector_steps import FIELDS, SCHEDULE, compare_ladder
from tinyjax import config as configs

FAMILIES = {"reid": "mobilenetv3", "pretrain": "efficientnet"}


def main(task, images):
    config = {"reid": reid, "pretrain": pretrain}[task].get_config(images)
    config = configs.with_fields(config, {**FIELDS, **SCHEDULE})
    print(json.dumps(compare_ladder(config, FAMILIES[task])))


if __name__ == "__main__":
    main(*sys.argv[1:])
