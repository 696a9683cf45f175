"""Launch a sweep in shards, or see how one is doing.

    python -m launch --engine local --config C --workdir DIR --shards 4 [--dry-run]
    python -m launch status DIR
    python -m launch collect DIR

Every shard runs the same command, which goes on where it was when it is run again; an engine only
renders what it is given, which --dry-run prints, or submits it. docs/scaling.md says which engines
are for what. Exit codes are those of the worker.
"""

import argparse
import sys
from importlib import import_module
from typing import Any

import yaml

from launch import job as jobs
from launch import status
from tinyjax.config.paths import path_of
from tinyjax.errors import UserError, exit_code

ENGINES = ("local", "ray", "slurm", "skypilot", "jobset", "gcloud")


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in ("status", "collect"):
        return _look(*argv)
    options, rest = _parser().parse_known_args(argv)
    job = jobs.job(
        options.config, rest, options.workdir, options.shards, options.accelerator,
        options.at_once, options.restarts,
    )  # fmt: skip
    engine = import_module(f"launch.{options.engine}")
    given = _given(options.set)
    rendered = engine.render(job, given)
    if options.dry_run:
        print(_printed(rendered))
        return 0
    return engine.submit(job, rendered, given)


def _look(command: str, *folders: str) -> int:
    if len(folders) != 1 or not path_of(folders[0]).is_dir():
        raise UserError(f"{command} {' '.join(folders)}: give one run folder")
    folder = path_of(folders[0])
    if command == "collect":
        status.collect(folder)
        print(f"{folder / 'results.csv'}")
    else:
        print(status.table(status.status(folder)))
    return 0


def _given(texts: list[str]) -> dict[str, Any]:
    """Parameters, as "key=value". Raises UserError."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise UserError(f"--set {text}: give KEY=VALUE, such as partition=gpu")
        found[key] = yaml.safe_load(value)
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m launch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="What else is given is the workers', such as --config.schedule.steps=9.",
        allow_abbrev=False,
    )
    parser.add_argument("--engine", required=True, choices=ENGINES)
    parser.add_argument("--config", required=True, metavar="FILE[:ARGS]")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="that all machines share")
    parser.add_argument("--shards", type=int, required=True, metavar="N")
    parser.add_argument(
        "--accelerator", default="cpu", metavar="NAME", help="of a shard: cpu, gpu, v5litepod-8, .."
    )
    parser.add_argument(
        "--at-once",
        type=int,
        default=0,
        metavar="N",
        help="shards at the same time: local (by itself 1) and slurm",
    )
    parser.add_argument(
        "--restarts", type=int, default=20, metavar="N", help="of a shard, before giving up"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a parameter of the engine"
    )
    parser.add_argument("--dry-run", action="store_true", help="print every file and command")
    return parser


def _printed(rendered: jobs.Rendered) -> str:
    files = [f"# {name}\n{text}" for name, text in rendered.files.items()]
    return "\n".join([*files, *(jobs.shell(command) for command in rendered.commands)])


if __name__ == "__main__":
    sys.exit(exit_code(main))
