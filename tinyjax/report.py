"""Write a report of an evaluated run, a sweep, or a study (a folder of runs and sweeps).

    python -m tinyjax.report runs/hit_uav

Writes to the folder: report.html, a single page that needs no internet; its figures, in
figures/report; and report.csv, a row for each network, suite and slice with the mean score over
seeds, the gain over training from scratch, and their 95 % intervals. Runs that are not evaluated
yet are evaluated first, see `tinyjax.evaluate`. docs/robustness.md defines the numbers.
"""

import argparse
import sys
import time

from tinyjax.config.paths import parse_local_path
from tinyjax.errors import UserError, run_command
from tinyjax.run.logs import log, start_log


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tinyjax.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=parse_local_path, help="folder of a run, a sweep or a study")
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="NAME",
        help="run or sweep of the study to leave out; may be repeated",
    )
    options = parser.parse_args(argv)
    folder = options.folder
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder of a run, a sweep or a study")

    from tinyjax import evaluate
    from tinyjax.reporting import run_folders, tables, writer
    from tinyjax.tasks import get_task

    for path in run_folders.list_runs(folder, options.exclude).values():
        if run_folders.is_evaluated(path):
            continue
        if code := evaluate.main(["--workdir", str(path)]):
            return code
        if not run_folders.is_evaluated(path):
            raise UserError(f"{path}: a report needs its evaluation, which could not be saved")
    start_log()
    start = time.time()
    file = writer.write(tables.read(folder, get_task, options.exclude))
    log.info(f"wrote {file} in {time.time() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
