"""Run folders whose weights are initial ones: written in seconds, without training."""

from pathlib import Path

from tinyjax import config as configs
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
    inputs = {"image": (64, 64, channels)}
    variables = get_task("detect").model_functions(config, CLASSES, inputs).init(seed)
    metadata = {
        "parameters": flops.count_parameters(variables.params),
        "inputs": inputs,
        "config": config.to_dict(),
        "classes": CLASSES,
        "step": 0,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(configs.to_json(config))
    write_weights(folder / "weights" / run_folder.member_id({}), variables, metadata)
    return folder
