"""Where metrics go besides metrics.csv: TensorBoard and W&B, both extras."""

import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from tinyjax.errors import UserError

Track = Callable[[int, str, Mapping[str, float]], None]  # step, split, metric -> value


def trackers(config: ConfigDict, folder: Path, step: int, stack: ExitStack) -> list[Track]:
    """A function for each tracker that `config.log` asks for; `stack` closes them.

    step: where the run (re)starts; what TensorBoard has beyond it is dropped. A resumed run goes on
    in the same run of W&B, whose id is kept in the folder. Raises UserError if the extra is not
    installed.
    """
    found: list[Track] = []
    if config.log.tensorboard:
        board = _extra("tensorboardX", "tensorboard").SummaryWriter(
            str(folder / "tensorboard"), purge_step=step + 1
        )
        stack.callback(board.close)

        def to_board(step, split, values):
            for name, value in values.items():
                board.add_scalar(f"{split}/{name}", value, step)

        found.append(to_board)
    if config.log.wandb:
        own = folder / "wandb-id.txt"
        if not own.exists():
            own.write_text(secrets.token_hex(4))
        run = _extra("wandb", "wandb").init(
            project=config.log.wandb,
            name=folder.name,
            id=own.read_text(),
            dir=folder,
            config=config.to_dict(),
            resume="allow",
        )
        stack.callback(run.finish)

        def to_wandb(step, split, values):
            run.log({f"{split}/{name}": value for name, value in values.items()}, step=step)

        found.append(to_wandb)
    return found


def _extra(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(
            f"log.{extra}: {module} is not installed; pip install 'tinyjax[{extra}]'"
        ) from error
