"""Evaluate: the weights of a finished run on its suites.

    python -m tinyjax.evaluate --workdir runs/hit_uav [--weights best] [--suite shift]

Prints the scores: of a detector AP (IoU 0.50:0.95), AP50 and AP75, per class and per size of object
(the side of a square of equal area, in pixels of the file); of a classifier the mean accuracy of
its classes, top-1 and top-5. Writes them to <workdir>/evaluations/<weights>.csv, figures and the
worst images to the folder <workdir>/evaluations/<weights>. Fields of the run's config may be
overridden, such as --config.nms.overlap=0.6.
"""

import sys
from pathlib import Path

from tinyjax import config as configs
from tinyjax import runfolder
from tinyjax.errors import UserError, exit_code, suggest

FLAGS = {
    "--weights": {
        "choices": ("last", "best"),
        "default": "last",
        "help": "averaged weights: the last, or the best",
    },
    "--suite": {
        "action": "append",
        "metavar": "NAME",
        "help": "only this suite; may be given several times",
    },
}


def main(argv: list[str] | None = None) -> int:
    options = configs.options("evaluate", __doc__, argv, FLAGS, needs=("workdir",))
    config, variables, about = runfolder.load_run(
        options.workdir, options.weights, options.overrides
    )
    names = options.suite or list(config.data.suites)
    for name in names:
        if name not in config.data.suites:
            raise UserError(f"--suite {name}: {suggest(name, config.data.suites)}")

    from tinyjax import startup, tasks

    startup.keep_memory()
    startup.keep_programs()
    runfolder.start_log()
    classes = tuple(about["classes"])
    kind = tasks.module(config.task)
    task = kind.make_task(config, classes, about["frame"][2])
    suites, scores, found = {}, {}, {}
    for name in names:
        suites[name] = kind.load(config.data, config.data.suites[name], classes)
        predictions = tasks.predict_all(task.predict, variables, suites[name].images)[0]
        (scores[name],) = task.score([predictions], suites[name])
        found[name] = kind.in_file_pixels(predictions, suites[name])
    runfolder.log.info(
        f"{options.workdir}: {options.weights} weights, step {about['step']}\n{kind.table(scores)}"
    )
    file = Path(options.workdir) / "evaluations" / f"{options.weights}.csv"
    rows = [{"suite": name, **values} for name, values in scores.items()]
    file.parent.mkdir(exist_ok=True)
    runfolder.write_rows(file, rows, rows[0])
    kind.report(file.with_suffix(""), suites, found, scores, about.get("training", {}))
    runfolder.log.info(f"written to {file}; figures and the worst images to {file.with_suffix('')}")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
