"""`tinyjax.train` in a process that kills itself with SIGKILL at a named point.

python tests/killed_train.py POINT --config .. --workdir ..
"""

import os
import pathlib
import signal
import sys
from importlib import import_module

from tinyjax.population import prediction
from tinyjax.run.checkpoints import Checkpoints
from tinyjax.run.csv_files import MetricsFile

# The package's attribute of this name may be the function of tinyjax.api.
train = import_module("tinyjax.train")


def kill(*_args, **_kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def replace_call(number, function, replacement=kill):
    """`function`, with its `number`-th call replaced by `replacement`."""
    calls = []

    def wrapped(*args, **kwargs):
        calls.append(1)
        called = replacement if len(calls) == number else function
        return called(*args, **kwargs)

    return wrapped


def then_kill(function):
    """`function`, after which the process kills itself."""

    def wrapped(*args, **kwargs):
        function(*args, **kwargs)
        kill()

    return wrapped


def before_save():
    Checkpoints.save = replace_call(2, Checkpoints.save)


def inside_save():
    """Step 6 is written, but its folder is not yet renamed to its final name."""
    rename = os.rename

    def rename_or_kill(source, target, **kwargs):
        if pathlib.Path(target).name == "6":
            kill()
        return rename(source, target, **kwargs)

    os.rename = rename_or_kill


def after_save():
    save = Checkpoints.save
    Checkpoints.save = replace_call(2, save, then_kill(save))


def inside_evaluation():
    prediction.predict_all = replace_call(2, prediction.predict_all)


def after_metrics_of_the_first_suite():
    add = MetricsFile.add
    # By then 3 training rows have been written, one per step.
    MetricsFile.add = replace_call(4, add, then_kill(add))


def before_weights():
    train.write_weights = replace_call(1, train.write_weights)


def before_results():
    train.write_rows = replace_call(2, train.write_rows)  # the first call writes members.csv


POINTS = {
    function.__name__: function
    for function in (
        before_save, inside_save, after_save, inside_evaluation,
        after_metrics_of_the_first_suite, before_weights, before_results,
    )
}  # fmt: skip

if __name__ == "__main__":
    POINTS[sys.argv[1]]()
    sys.exit(train.main(sys.argv[2:]))
