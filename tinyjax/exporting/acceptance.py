"""The scores of run and file on the suite that selects the run's best weights.

split = load_monitor(model)
record = score_file(model, split, {"": (predictions.make_predict(run, ..), None)})
reasons(record)  # () if the file is as good as the run
"""

from collections.abc import Mapping
from typing import Any

from tinyjax.core import Split
from tinyjax.errors import UserError
from tinyjax.exporting.predictions import predict_samples
from tinyjax.inference.model import Model, PredictFunctions
from tinyjax.run.logs import log
from tinyjax.tasks import get_task
from tinyjax.tasks.suites import load_suite

MAX_LOSS = 0.01  # of the main score, by which a quantized file may be worse than the run


def load_monitor(model: Model) -> Split | None:
    """The suite `config.monitor`; None, and a warning, if it is not on this machine or has images
    of another size than the network's.
    """
    config, shape = model.config, model.input_shape
    name = config.monitor
    try:
        split: Any = load_suite(config.task, config.data, name, model.classes, [("image", shape)])
    except (UserError, OSError) as error:
        log.warning(f"not compared on images of the suite {name!r}: {error}")
        return None
    if (other := split.inputs["image"].shape[1:]) != shape:
        log.warning(f"not compared on images of the suite {name!r}: {other}, not {shape}")
        return None
    return split


def score_file(model: Model, split: Split, functions: PredictFunctions) -> dict[str, Any]:
    """The scores of run and file on the suite `config.monitor`, as JSON types:
    {"suite", "metric", "run", "file"}.

    functions: of the file, see `predictions.predict_samples`.
    """
    task = get_task(model.config.task)
    predictions = [
        *predict_samples(model.predict_functions, split.inputs),
        *predict_samples(functions, split.inputs),
    ]
    run, file = (float(s[task.monitor]) for s in task.score(predictions, split, model.config))
    return {"suite": model.config.monitor, "metric": task.monitor, "run": run, "file": file}


def reasons(score: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Why a quantized file is not accepted. score: a result of `score_file`; None: not known."""
    if score is None:
        return ("its score is not known: the suite that selects the best weights is missing",)
    metric, run, file = score["metric"], score["run"], score["file"]
    if run - file <= MAX_LOSS:
        return ()
    return (
        f"{metric} on {score['suite']} is {100 * file:.2f}, that of the run {100 * run:.2f}; "
        f"{100 * MAX_LOSS:g} less is accepted",
    )
