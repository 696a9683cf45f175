"""Progress, metrics and figures during training, for a population of a sweep or for a single run.
Only the main process writes.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from tinyjax.core import Split, Task
from tinyjax.errors import UserError
from tinyjax.population.search_space import Member
from tinyjax.run import distributed
from tinyjax.run.csv_files import MetricsFile
from tinyjax.run.logs import log
from tinyjax.run.progress import add_finished, current_rate, progress_bar, restart_clock
from tinyjax.run.text import value_range

Scores = list[dict[str, dict[str, float]]]  # of each member: suite -> metric -> value


class PopulationReporter:
    """Reports one population of a sweep into `tables`, and on the sweep's progress bar."""

    def __init__(self, tables: Path, members: Sequence[Member], task: Task, bar: Any = None):
        self.tables = tables
        self._members, self._task, self._bar = members, task, bar
        self._is_main = distributed.is_main_process()
        self._metrics: MetricsFile | None = None

    def start(self, config: ConfigDict, step: int) -> None:
        """Continue metrics.csv, and show the steps of a restored population on the bar."""
        self._config = config
        if self._is_main:
            self._metrics = MetricsFile(self.tables / "metrics.csv", step)
        self._start_bar(config.schedule.steps, step)

    def _start_bar(self, total: int, step: int) -> None:
        add_finished(self._bar, step * len(self._members))
        restart_clock(self._bar)

    def record(self, step: int, split: str, values: Sequence[Mapping[str, float]]) -> None:
        """Add each member's metrics to metrics.csv."""
        if self._metrics:
            for member, metrics in zip(self._members, values, strict=True):
                self._metrics.add(member.id, step, split, dict(metrics))

    def flush(self) -> None:
        """Write buffered metrics, so that a kill after the next checkpoint loses none."""
        if self._metrics:
            self._metrics.flush()

    def advance(self, steps: int = 1) -> None:
        self._bar.update(steps * len(self._members))

    def update_status(self, losses: Sequence[float], diverged_at: np.ndarray) -> None:
        """Show the loss, the speed and the number of diverged members next to the bar."""
        images = current_rate(self._bar) * self._config.batch
        diverged = (diverged_at >= 0).sum()
        suffix = f", {diverged} of {len(diverged_at)} diverged" if diverged else ""
        self._bar.set_postfix_str(f"loss {np.mean(losses):.3f}, {images:.0f} images/s{suffix}")

    def check_divergence(self, diverged_at: np.ndarray) -> None:
        """A sweep continues while any of its members trains."""

    def record_predictions(
        self, name: str, split: Split, predictions: Sequence[Mapping[str, np.ndarray]]
    ) -> None:
        """A sweep keeps no predictions."""

    def log_evaluation(self, step: int, scores: Scores) -> None:
        """Log the scores of an evaluation."""
        self.flush()
        self._plot_curves()
        for suite in scores[0]:
            log.info(f"step {step}: {suite} {self._summary([s[suite] for s in scores])}")

    def _plot_curves(self) -> None:
        pass

    def finish(self, remaining: int) -> None:
        """remaining: steps not trained, because all members diverged or patience ran out."""
        self.advance(remaining)

    def close(self) -> None:
        """Release what `start` opened."""

    def write_report(
        self, suites: Mapping[str, Split], scores: Scores, class_counts: Sequence[Any]
    ) -> None:
        """A sweep reports on all its populations together, see `sweep.collect_tables`."""

    def log_results(self, scores: Scores) -> None:
        """In a sweep, `log_evaluation` has already logged the scores."""

    def _summary(self, scores: Sequence[Mapping[str, float]]) -> str:
        return ", ".join(
            f"{name} {value_range([values[name] for values in scores])}"
            for name in self._task.metrics(self._config)
        )


class SingleRunReporter(PopulationReporter):
    """Reports a single run: also trackers, curves, pictures of predictions and a report."""

    def __init__(self, folder: Path, members: Sequence[Member], task: Task):
        super().__init__(folder, members, task)
        self._folder = folder
        self._trackers: list[Any] = []
        self._stack = ExitStack()
        self._predictions: dict[str, Any] = {}

    def start(self, config: ConfigDict, step: int) -> None:
        from tinyjax.run.trackers import open_trackers

        super().start(config, step)
        if self._is_main:
            self._trackers = open_trackers(config, self._folder, step, self._stack)

    def _start_bar(self, total: int, step: int) -> None:
        self._bar = progress_bar(
            total=total, initial=step, unit="step", smoothing=0.1, disable=not self._is_main
        )

    def record(self, step: int, split: str, values: Sequence[Mapping[str, float]]) -> None:
        super().record(step, split, values)
        for track in self._trackers:
            track(step, split, values[0])

    def check_divergence(self, diverged_at: np.ndarray) -> None:
        """Raise UserError if the loss or the gradient became non-finite."""
        if (step := diverged_at.item()) >= 0:
            raise UserError(
                f"{self._folder}: loss or gradient is not finite at step {step}; "
                "give a lower optimizer.lr and another --workdir"
            )

    def record_predictions(
        self, name: str, split: Split, predictions: Sequence[Mapping[str, np.ndarray]]
    ) -> None:
        """Draw a sheet of predictions, and keep them for the report."""
        if not self._is_main:
            return
        shown: Any = predictions[0]
        if self._task.to_file_pixels:
            shown = self._task.to_file_pixels(shown, split)
        self._predictions[name] = shown
        self._task.plot_samples(split, shown, self._folder / "samples" / f"{name}.png")

    def _plot_curves(self) -> None:
        from tinyjax.reporting import training_curves

        if self._is_main:
            metrics = self._folder / "metrics.csv"
            labels = self._task.metrics(self._config)
            training_curves.draw(metrics, self._folder / "figures", labels)

    def finish(self, remaining: int) -> None:
        self._bar.close()

    def close(self) -> None:
        self._bar.close()
        self._stack.close()

    def write_report(
        self, suites: Mapping[str, Split], scores: Scores, class_counts: Sequence[Any]
    ) -> None:
        """Write tables and figures of the last evaluation."""
        self._task.write_report(
            self._folder, suites, self._predictions, scores[0], class_counts[0], self._config
        )

    def log_results(self, scores: Scores) -> None:
        for name, values in scores[0].items():
            picture = self._folder / "samples" / f"{name}.png"
            log.info(f"{name}: {self._summary([values])}, pictures in {picture}")
