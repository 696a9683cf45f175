"""`tinyjax.train` that kills itself, SIGKILL and no goodbye, at a named point.

python tests/killed_train.py POINT --config .. --workdir ..
"""

import os
import pathlib
import signal
import sys

from tinyjax import tasks, train
from tinyjax.run import checkpoints
from tinyjax.run.csv_files import Metrics


def kill(*_args, **_kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def on_call(number, fn, then=kill):
    """`fn`, but its `number`-th call is `then`."""
    calls = []

    def wrapped(*args, **kwargs):
        calls.append(1)
        return then(*args, **kwargs) if len(calls) == number else fn(*args, **kwargs)

    return wrapped


def after(fn):
    """`fn`, then death."""

    def wrapped(*args, **kwargs):
        fn(*args, **kwargs)
        kill()

    return wrapped


def before_save():
    checkpoints.Checkpoints.save = on_call(2, checkpoints.Checkpoints.save)


def inside_save():
    """All of step 6 is written, but its folder has not been renamed into place."""
    rename = os.rename

    def dies(source, target, **kwargs):
        if pathlib.Path(target).name == "6":
            kill()
        return rename(source, target, **kwargs)

    os.rename = dies


def after_save():
    save = checkpoints.Checkpoints.save
    checkpoints.Checkpoints.save = on_call(2, save, then=after(save))


def inside_evaluation():
    tasks.predict_all = on_call(2, tasks.predict_all)


def after_metrics_of_the_first_suite():
    add = Metrics.add
    # 3 training rows have been written by then, one per step
    Metrics.add = on_call(4, add, then=after(add))


def before_weights():
    train.write_weights = on_call(1, train.write_weights)


def before_results():
    train.write_rows = on_call(2, train.write_rows)  # after members.csv


POINTS = {
    f.__name__: f
    for f in (
        before_save, inside_save, after_save, inside_evaluation,
        after_metrics_of_the_first_suite, before_weights, before_results,
    )
}  # fmt: skip

if __name__ == "__main__":
    POINTS[sys.argv[1]]()
    sys.exit(train.main(sys.argv[2:]))
