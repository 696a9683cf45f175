"""Run folders whose weights are initial ones: written in seconds, without training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from tinyjax import config as configs
from tinyjax.core import Variables
from tinyjax.models import flops
from tinyjax.run import run_folder
from tinyjax.run.weights import write_weights
from tinyjax.tasks import get_task

CONFIG = Path(__file__).parent / "configs" / "detector.py"
CLASSES = ("person", "vehicle", "animal")


def write_untrained_run(folder: Path, channels: int = 1, seed: int = 0, **common) -> Path:
    """Write a run with the initial weights of a detector for 64 x 64 images, and return `folder`.

    common: fields of config.data.common.
    """
    config = configs.load(str(CONFIG))
    with config.data.common.unlocked():
        config.data.common.update(common)
    return write_initial_weights(folder, config, CLASSES, {"image": (64, 64, channels)}, seed)


def write_initial_weights(
    folder: Path,
    config: ConfigDict,
    classes: tuple[str, ...],
    inputs: Mapping[str, tuple[int, ...]],
    seed: int = 0,
    **metadata: Any,
) -> Path:
    """Write a run with the initial weights of a config's network, and return `folder`.

    metadata: further metadata of the weights.
    """
    variables = get_task(config.task).model_functions(config, classes, inputs).init(seed)
    write_run(folder, config, variables, classes=classes, inputs=inputs, **metadata)
    return folder


def write_random_detector(folder: Path, config: ConfigDict) -> Path:
    """Write a run of a detector for gray 64 x 64 images, and return `folder`.

    Its last layers are random: unlike with initial weights, scores differ, and some boxes match
    objects of the synthetic scenes.
    """
    inputs, rng = {"image": (64, 64, 1)}, np.random.default_rng(0)
    variables = get_task("detect").model_functions(config, CLASSES, inputs).init(0)

    def randomize(path, leaf):
        if "/class_out" in path:
            return rng.normal(0, 1, leaf.shape).astype(np.float32)
        is_box = "/box_out" in path and path.endswith("kernel")
        return rng.normal(0, 0.1, leaf.shape).astype(np.float32) if is_box else leaf

    params = {path: randomize(path, leaf) for path, leaf in variables.params.items()}
    variables = Variables(params, variables.stats)
    write_run(folder, config, variables, classes=CLASSES, inputs=inputs)
    return folder


def write_run(folder: Path, config: ConfigDict, variables: Variables, **metadata: Any) -> None:
    """Write the files that a finished run has besides tables and figures."""
    metadata = {
        "parameters": flops.count_parameters(variables.params),
        "config": config.to_dict(),
        "step": 0,
        **metadata,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(configs.to_json(config))
    write_weights(folder / "weights" / run_folder.member_id({}), variables, metadata)
