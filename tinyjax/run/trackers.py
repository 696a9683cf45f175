"""Trackers that also receive the rows of metrics.csv: TensorBoard and W&B, both extras."""

import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from tinyjax.errors import UserError

Track = Callable[[int, str, Mapping[str, float]], None]  # step, split, metric -> value


def open_trackers(config: ConfigDict, folder: Path, step: int, stack: ExitStack) -> list[Track]:
    """Return a function for each tracker that is enabled in `config.log`.

    A resumed run continues the same W&B run, whose id is stored in the folder.

    Args:
        config: of the run.
        folder: the run folder.
        step: where the run starts or resumes; later steps are removed from TensorBoard.
        stack: closes the trackers.

    Raises UserError if an extra is not installed.
    """
    enabled: list[Track] = []
    if config.log.tensorboard:
        board = _extra("tensorboardX", "tensorboard").SummaryWriter(
            str(folder / "tensorboard"), purge_step=step + 1
        )
        stack.callback(board.close)

        def to_board(step, split, values):
            for name, value in values.items():
                board.add_scalar(f"{split}/{name}", value, step)

        enabled.append(to_board)
    if config.log.wandb:
        id_file = folder / "wandb-id.txt"
        if not id_file.exists():
            id_file.write_text(secrets.token_hex(4), encoding="utf-8")
        run = _extra("wandb", "wandb").init(
            project=config.log.wandb,
            name=folder.name,
            id=id_file.read_text(encoding="utf-8"),
            dir=folder,
            config=config.to_dict(),
            resume="allow",
        )
        stack.callback(run.finish)

        def to_wandb(step, split, values):
            run.log({f"{split}/{name}": value for name, value in values.items()}, step=step)

        enabled.append(to_wandb)
    return enabled


def _extra(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise UserError(
            f"log.{extra}: {module} is not installed; pip install 'tinyjax[{extra}]'"
        ) from error
