"""Predict with all members in batches of one shape, and score the predictions."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from tinyjax.core import Split, Task, Variables


def predict_all(
    predict: Callable[..., dict[str, Any]],
    variables: Variables,
    inputs: Mapping[str, Any],
    batch: int = 32,
    num_members: int = 1,
) -> list[dict[str, np.ndarray]]:
    """Each member's predictions for N samples.

    Args:
        predict: `ModelFunctions.predict`; for several members, batched over the axis [M] of
            `variables`.
        inputs: arrays [N, ...] by name, indexable like numpy arrays.
        batch: samples per call. The last batch is filled up with its last sample, so that nothing
            is compiled for a remainder.
    """
    size, batches = len(next(iter(inputs.values()))), []
    for start in range(0, size, batch):
        rows = np.minimum(np.arange(start, start + batch), size - 1)
        samples = {name: array[rows] for name, array in inputs.items()}
        batches.append(jax.device_get(predict(variables, samples)))
    axis = 0 if num_members == 1 else 1
    predictions = {name: np.concatenate([b[name] for b in batches], axis) for name in batches[0]}
    if num_members == 1:
        return [{name: array[:size] for name, array in predictions.items()}]
    return [
        {name: array[i, :size] for name, array in predictions.items()} for i in range(num_members)
    ]


def predict_and_score(
    predict: Callable[..., dict[str, Any]],
    variables: Variables,
    suites: Mapping[str, Split],
    task: Task,
    config: Any,
    batch: int,
    num_members: int,
) -> Iterator[tuple[str, list[dict[str, np.ndarray]], list[dict[str, float]]]]:
    """Yield (suite, predictions of each member, scores of each member). See `predict_all`."""
    for name, split in suites.items():
        predictions = predict_all(predict, variables, split.inputs, batch, num_members)
        yield name, predictions, task.score(predictions, split, config)
