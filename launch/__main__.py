"""Launch a sweep in shards, or look at its progress.

    python -m launch --engine local --config C --workdir DIR --shards 4 [--dry-run]
    python -m launch status DIR
    python -m launch collect DIR

Every shard runs the same command, which resumes when it is run again. An engine renders files and
commands and submits them; --dry-run only prints them. docs/scaling.md compares the engines. Exit
codes are those of the worker.
"""

import argparse
import sys
from functools import partial
from importlib import import_module
from typing import Any

import yaml

from tinyjax.config.paths import parse_path
from tinyjax.errors import UserError, run_all, run_command

from . import status
from .job import Rendered, make_job, shell_line

ENGINES = ("local", "ray", "slurm", "skypilot", "jobset", "gcloud")


def main(argv: list[str] | None = None) -> int:
    """Run the command. Raises UserError for an invalid argument."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in ("status", "collect"):
        return _run_subcommand(*argv)
    options, worker_options = _parser().parse_known_args(argv)
    arguments = (
        options.config, worker_options, options.workdir, options.shards, options.accelerator,
        options.at_once, options.restarts,
    )  # fmt: skip
    job, parameters = run_all(
        partial(make_job, *arguments), partial(_parse_parameters, options.set)
    )
    engine = import_module(f".{options.engine}", __package__)
    rendered = engine.render(job, parameters)
    if options.dry_run:
        print(_as_text(rendered))
        return 0
    return engine.submit(job, rendered, parameters)


def _run_subcommand(command: str, *folders: str) -> int:
    if len(folders) != 1:
        raise UserError(f"{command}: give one run folder, got {len(folders)}")
    if not (folder := parse_path(folders[0])).is_dir():
        raise UserError(f"{command} {folder}: no such folder")
    if command == "collect":
        status.collect(folder)
        print(f"{folder / 'results.csv'}")
    else:
        print(status.status_table(status.shard_states(folder)))
    return 0


def _parse_parameters(texts: list[str]) -> dict[str, Any]:
    """Parse parameters "key=value". Raises UserError."""
    pairs = [text.partition("=") for text in texts]
    if mistakes := ["".join(pair) for pair in pairs if not all(pair[:2])]:
        raise UserError(
            *(f"--set {text}: give KEY=VALUE, such as partition=gpu" for text in mistakes)
        )
    return {key: yaml.safe_load(value) for key, _, value in pairs}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}",
        description=__doc__.replace("python -m launch", f"python -m {__package__}"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Other options are passed to the workers, such as --config.schedule.steps=9.",
        allow_abbrev=False,
    )
    parser.add_argument("--engine", required=True, choices=ENGINES)
    parser.add_argument("--config", required=True, metavar="FILE[:ARGS]")
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="run folder, shared by all machines"
    )
    parser.add_argument("--shards", type=int, required=True, metavar="N")
    parser.add_argument(
        "--accelerator",
        default="cpu",
        metavar="NAME",
        help="accelerator of each shard: cpu, gpu, or a TPU slice such as v5litepod-8",
    )
    parser.add_argument(
        "--at-once",
        type=int,
        default=0,
        metavar="N",
        help="maximum number of concurrent shards, of engines local (default 1) and slurm",
    )
    parser.add_argument(
        "--restarts", type=int, default=20, metavar="N", help="maximum restarts of a shard"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a parameter of the engine"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="only print the files and the commands"
    )
    return parser


def _as_text(rendered: Rendered) -> str:
    files = [f"# {name}\n{text}" for name, text in rendered.files.items()]
    return "\n".join([*files, *map(shell_line, rendered.commands)])


if __name__ == "__main__":
    sys.exit(run_command(main))
