"""Report: all that is known of an evaluated run, of a sweep, or of a study, which is a folder of
several of them, as one page that opens from disk.

    python -m tinyjax.report runs/hit_uav

Writes <folder>/report.html, which needs no network, its figures to <folder>/figures/report, and
report.csv: of every network, suite and slice the mean of its seeds with interval, and its gain.
What was not evaluated yet is evaluated first, see `tinyjax.evaluate`. docs/robustness.md says what
is what.
"""

import argparse
import sys
import time
from pathlib import Path

from tinyjax.errors import UserError, exit_code
from tinyjax.run.logs import log, start_log


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tinyjax.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, help="of a run, a sweep or a study")
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="NAME",
        help="a run or sweep of the study that is not asked about; may be given several times",
    )
    options = parser.parse_args(argv)
    folder = options.folder
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give that of a run, a sweep or a study")

    from tinyjax import evaluate
    from tinyjax.reporting import run_folders, tables
    from tinyjax.reporting.report import write

    for path in run_folders.runs_of(folder, options.without).values():
        if not run_folders.evaluated(path) and (code := evaluate.main(["--workdir", str(path)])):
            return code
    start_log()
    begin = time.time()
    file = write(tables.read(folder, options.without))
    log.info(f"written to {file} after {time.time() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
