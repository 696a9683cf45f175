"""As detector_steps.py, for classifiers side by side on a grid of four by two devices.

    python -m tests.population.classifier_steps

Nine members: three on each of three rows of the grid, and idle copies on the fourth. Of three, two
lie side by side (wide:2), and the third alone. A device has four images of each, in up to two
groups.
"""

import json

from tests.population.detector_steps import SCHEDULE, compare
from tests.population.device_steps import classification
from tinyjax import config as configs
from tinyjax.population import wide_rules

MEMBERS, MESH = 9, (4, 2)


def main():
    wide_rules.MIN_IMAGES = 2
    config, training = classification()
    config = configs.with_fields(config, SCHEDULE)
    points = [{"seed": seed, "optimizer.lr": 0.02 * (seed + 1)} for seed in range(MEMBERS)]
    print(json.dumps(compare(config, training, points, MESH, "wide", 2)))


if __name__ == "__main__":
    main()
