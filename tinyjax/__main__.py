"""The program `tinyjax`: `tinyjax train ..` is `python -m tinyjax.train ..`."""

import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from tinyjax.errors import UserError, run_command, suggest

COMMANDS = {
    "prepare": "check a data set, or convert it to ArrayRecord",
    "train": "train one config, or a sweep of it, into one run folder; resume it",
    "evaluate": "score a run or a sweep by class, object size, slice, data set and corruption",
    "predict": "predict on images, folders and videos; write pictures, JSON and CSV",
    "export": "write a network as an ONNX file, and compare the two",
    "benchmark": "measure the latency of a run, of exported files, or of a sweep's members",
    "report": "show a run, a sweep or a study on one HTML page",
    "study": "train several sweeps, one from the weights of another, and report on them",
    "average": "average weights and score the averages",
    "rgn": "measure relative gradient norms",
    "preflight": "estimate the memory, time and cost of a sweep on an accelerator",
    "launch": "run the shards of a sweep on other machines",
}
ROOT = str(Path(__file__).parents[1])


def main(argv: list[str] | None = None) -> int:
    """Run a command. Raises UserError for an unknown command, and as the command does."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        lines = (f"  {command:<10} {summary}" for command, summary in COMMANDS.items())
        print("\n".join(["usage: tinyjax COMMAND ..", "", *lines]))
        print("\n`tinyjax COMMAND --help` describes a command; `tinyjax --version` is the version.")
        return 0
    if name == "--version":
        print(f"tinyjax {version('tinyjax')}")
        return 0
    if name not in COMMANDS:
        raise UserError(f"tinyjax {name}: {suggest(name, COMMANDS)}")
    return import_module(_module(name)).main(rest)


def _module(command: str) -> str:
    if command != "launch":
        return f"tinyjax.{command}"
    # An installed package has it as tinyjax.launch, see setup.py; so has an editable one.
    is_checkout = ROOT in sys.path and Path(ROOT, "launch", "__main__.py").is_file()
    return "launch.__main__" if is_checkout else "tinyjax.launch.__main__"


def run() -> int:
    """Run the command line of this process and return its exit code."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(run())
