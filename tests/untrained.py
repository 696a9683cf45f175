"""A run folder as training leaves it, with weights that were never trained: seconds instead of a
minute.
"""

from pathlib import Path

from tinyjax import config as configs
from tinyjax.models import flops
from tinyjax.run import run_folder
from tinyjax.run.weights import write_weights
from tinyjax.tasks import detect

CONFIG = Path(__file__).parent / "configs" / "detector.py"
CLASSES = ("person", "vehicle", "animal")


def untrained(folder: Path, channels: int = 1, seed: int = 0, **common) -> Path:
    """`folder`, with the weights of one network for frames of 64 x 64; common: of config.data."""
    config = configs.load(str(CONFIG))
    with config.data.common.unlocked():
        config.data.common.update(common)
    variables = detect.make_task(config, CLASSES, channels).init(seed)
    about = {
        "parameters": flops.parameters(variables.params),
        "frame": (64, 64, channels),
        "config": config.to_dict(),
        "classes": CLASSES,
        "step": 0,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(configs.to_json(config))
    write_weights(folder / "weights" / run_folder.member_id({}), variables, about)
    return folder
