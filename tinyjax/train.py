"""Train the network of a config, or all members of a sweep, into a run folder.

    python -m tinyjax.train --config configs/hit_uav.py --workdir runs/hit_uav [--config.a.b=c]

The same command with the same folder resumes an interrupted run. Exit codes: 0 finished, 2 invalid
input, 69 the devices or processes are not the expected ones or another process trains in the
folder, 75 stopped (SIGTERM or Ctrl-C) and saved.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from tinyjax import config as configs
from tinyjax.errors import STOPPED, UserError, run_command
from tinyjax.population import options as sweep_options
from tinyjax.population.options import SINGLE_RUN
from tinyjax.population.search_space import Member
from tinyjax.run import distributed, run_folder
from tinyjax.run.csv_files import write_rows
from tinyjax.run.heartbeat import Heartbeat
from tinyjax.run.locks import lock_shard
from tinyjax.run.logs import log, log_to, start_log
from tinyjax.run.weights import write_weights


def main(argv: list[str] | None = None) -> int:
    flags = {**sweep_options.FLAGS, **distributed.FLAGS}
    options = configs.parse_options("train", __doc__, argv, flags)
    config = configs.load(options.config, options.overrides)
    members = sweep_options.select_members(
        options.config, config, options.only or (), options.limit
    )
    member_batching = sweep_options.parse_member_batching(options.member_batching)
    shard = sweep_options.parse_shard(options.shard)
    if options.dry_run:
        print(describe_plan(config, members, member_batching))
        return 0
    from tinyjax.run import runtime

    runtime.tune_allocator()  # before JAX initializes its devices
    with distributed.process_group(options.processes, options.join_timeout):
        distributed.check_devices(options.expect)
        with distributed.stop_requests() as stop:
            return train(config, options.workdir, stop, members, shard, member_batching)


def describe_plan(config: Any, members: Sequence[Member], member_batching: str | None) -> str:
    """The populations that a sweep would train, as a table. Raises UserError for invalid fields."""
    from tinyjax.population.cost_model import cost_model, plan_table
    from tinyjax.population.plan import make_plan, this_machine
    from tinyjax.tasks import get_task
    from tinyjax.training.validation import check_members

    check_members(config, members)
    task = get_task(config.task)
    machine = this_machine()
    model = cost_model(config, task, machine.platform)
    return plan_table(model, members, make_plan(members, model, member_batching, machine))


def train(
    config: Any,
    folder: Path,
    stop: Sequence[int] = (),
    members: Sequence[Member] = (SINGLE_RUN,),
    shard: tuple[int, int] = (0, 1),
    member_batching: str | None = None,
) -> int:
    """Train one network, perhaps in phases, or all members of a sweep, into `folder`.

    Args:
        stop: received signals; when it is no longer empty, the run saves and returns `STOPPED`.
        shard: (i, n): train only populations i, i + n, .. of a sweep.
        member_batching: `--member-batching` of a sweep, see `plan.make_plan`.

    Raises UserError for invalid input, and MachineError if another process trains in the folder.
    """
    from tinyjax.run import runtime
    from tinyjax.tasks import get_task
    from tinyjax.training.phases import train_phases
    from tinyjax.training.reporters import SingleRunReporter
    from tinyjax.training.sweep import train_sweep
    from tinyjax.training.validation import check_sweep_options

    is_sweep, (index, shards) = [*members] != [SINGLE_RUN], shard
    check_sweep_options(config, is_sweep, shard, member_batching)
    task = get_task(config.task)
    runtime.tune_allocator()  # before JAX initializes its devices, which is_main_process does
    is_main = distributed.is_main_process()
    start_log(is_main)
    process = f"{index}-of-{shards}.{distributed.process_index()}"
    heartbeat = Heartbeat(folder / "heartbeats" / f"{process}.json")

    def train_run(config, folder):
        reporter = SingleRunReporter(folder, members, task)
        return train_members(config, folder, stop, heartbeat, members, reporter)

    log_name = "log.txt" if shards == 1 else f"log-{index}-of-{shards}.txt"
    with lock_shard(folder, shard) as shared:
        run_folder.open_folder(folder, configs.to_json(config), is_main, shared)
        heartbeat.write("starting")
        distributed.barrier("run folder is open")
        if not (folder / "config.json").exists():
            raise UserError(f"--workdir {folder}: give a folder that all processes share")
        with log_to(folder / log_name, is_main):
            if is_sweep:
                train_population = partial(train_members, config, folder, stop, heartbeat)
                code = train_sweep(
                    config, task, members, folder, shard, member_batching, train_population
                )
            elif run_folder.log_if_finished(folder):
                code = 0
            elif config.phases:
                code = train_phases(config, folder, train_run)
            else:
                code = train_run(config, folder)
            heartbeat.write("stopped" if code else "finished")
            return code


def train_members(
    config: Any,
    folder: Path,
    stop: Sequence[int],
    heartbeat: Heartbeat,
    members: Sequence[Member],
    reporter: Any,
    number: int = 0,
    method: str = "none",
    chunk_size: int = 0,
) -> int:
    """Train the members of one population, from their initial weights to their results.

    reporter: see `training.reporters`. number: index of the population in its sweep. method,
    chunk_size: see `batch_members`.
    """
    started = time.time()
    population_folder = folder / "populations" / str(number)
    write_heartbeat = partial(heartbeat.write, population=number)
    setup = set_up(
        config, folder, population_folder, members, reporter, method, chunk_size, write_heartbeat
    )
    outcome = fit(setup, reporter, stop, write_heartbeat)
    if outcome is None:
        return STOPPED
    if distributed.is_main_process():
        write_results(setup, outcome, folder, reporter)
        log.info(f"finished after {time.time() - started:.0f} s; everything is in {folder}")
        reporter.log_results(outcome.scores)
    return 0


@dataclass(frozen=True)
class Setup:
    """A population that is ready to be trained."""

    config: Any  # the fields that the members share
    task: Any
    training: Any
    suites: dict[str, Any]
    networks: list[Any]
    layout: Any
    checkpoints: Any
    state: Any  # on the devices
    step: int  # of the state
    train_step: Callable[..., Any]  # (state, data) -> (state, metrics), compiled
    batches: Iterator[Any]  # from `step` on
    predict: Callable[..., Any]  # (variables, inputs) -> predictions on the host
    keep_best: Callable[..., Any]  # ((state, score), None) -> state, see `step.keep_best`


@dataclass(frozen=True)
class Outcome:
    """A trained population."""

    state: Any  # on the host
    step: int
    scores: list[dict[str, dict[str, float]]]  # of each member: suite -> metric -> value


def set_up(
    config: Any,
    folder: Path,
    population_folder: Path,
    members: Sequence[Member],
    reporter: Any,
    method: str,
    chunk_size: int,
    write_heartbeat: Callable[..., None],
) -> Setup:
    """Load the data, build the networks, restore or initialize the state, compile the step."""
    import jax

    from tinyjax import step as steps
    from tinyjax.population import devices, measurements, networks, program, stack
    from tinyjax.population.input_pipeline import make_input_pipeline
    from tinyjax.run import runtime
    from tinyjax.run.checkpoints import Checkpoints
    from tinyjax.tasks import get_task
    from tinyjax.tasks.suites import check_leaks
    from tinyjax.training import run_data
    from tinyjax.training.validation import check_members

    # ---- data: stored on the devices as uint8, or streamed
    log.info(f"tinyjax {version('tinyjax')} on {runtime.describe_devices()}")
    if cache := runtime.enable_compile_cache():
        log.info(f"compiled programs are kept in {cache}")
    check_members(config, members)
    base, config = config, networks.member_config(config, members[0])
    task = get_task(config.task)
    data_file = run_data.record_file(folder, population_folder, members)
    training, suites = run_data.load_data(task, config, folder, data_file)
    if distributed.is_main_process():
        run_folder.record_config(folder, configs.to_json(base))

    # ---- networks: build each one, then stack them on the devices as one population
    built = [networks.build_network(base, member, task, training) for member in members]
    check_leaks(task, [record for network in built for record in network.trained_on], suites)
    layout = devices.device_layout(len(members), config.batch)
    population = stack.stack_members(built, task, training, layout.axes)
    pipeline = make_input_pipeline(task, training, config, base.seed, layout)
    placed = layout.place((population.variables, population.hyper, population.subset))
    batched = program.over_members(layout, method, chunk_size)
    variables, hyper, subset = measurements.add_regularizer(
        config, task, training, built, layout, placed, pipeline, batched
    )

    # ---- state: initialized, or restored from the newest checkpoint
    checkpoints = Checkpoints(population_folder / "checkpoints")
    init, train_step = program.make_training(config, task, population, layout, batched, method)
    state = jax.jit(init)(variables)
    if distributed.is_main_process():
        rows = [networks.members_row(network) for network in built]
        write_rows(reporter.tables / "members.csv", rows, dict.fromkeys(f for r in rows for f in r))
    height, width = next(iter(training.inputs.values())).shape[1:3]
    log.info(networks.describe(built, config, (width, height)))
    log.info(f"writes to: {folder}")
    if checkpoints.latest() is not None:
        state = layout.place(checkpoints.restore(layout.to_host(state)))
        log.info(f"resuming at step {_current_step(layout, state)} of {config.schedule.steps}")
    step = _current_step(layout, state)

    # ---- the compiled step
    start = time.time()
    write_heartbeat("compiling", steps=config.schedule.steps)
    predict = layout.from_host_rows(jax.jit(batched(population.model.predict, split_rows=True)))
    keep_best = jax.jit(batched(lambda pair, _: steps.keep_best(*pair)))
    batches = pipeline(step)
    batches = chain([first := next(batches)], batches)
    jitted = jax.jit(train_step, donate_argnums=0)
    compiled = jitted.lower(state, first, hyper, subset).compile()
    concurrent = layout.concurrent_members(method, chunk_size)
    runtime.check_step_fits(compiled, config.batch, concurrent)
    log.info(f"compiled in {time.time() - start:.0f} s")
    reporter.start(config, step)
    return Setup(
        config, task, training, suites, built, layout, checkpoints, state, step,
        lambda state, data: compiled(state, data, hyper, subset), batches, predict, keep_best,
    )  # fmt: skip


def _current_step(layout: Any, state: Any) -> int:
    return int(layout.to_host(state.step).max())


def fit(
    setup: Setup, reporter: Any, stop: Sequence[int], write_heartbeat: Callable[..., None]
) -> Outcome | None:
    """Train until the last step, until patience runs out, or until every member has diverged.

    Returns None after a stop signal; the state is then saved.
    """
    import numpy as np

    config, layout = setup.config, setup.layout
    state, step, total = setup.state, setup.step, config.schedule.steps
    all_diverged = False
    while True:
        finished = step == total or all_diverged
        evaluate_now = finished or (step > 0 and step % config.eval_every == 0)
        stopping = distributed.stop_requested(stop)
        if evaluate_now or stopping or (step > 0 and step % config.save_every == 0):
            # Save before the evaluation, so that an error in it loses no steps.
            reporter.flush()
            setup.checkpoints.save(step, layout.to_host(state))
        if evaluate_now:
            reporter.check_divergence(layout.to_host(state.diverged_at))
            scores = evaluate(setup, state, step, reporter)
            state = keep_best(setup, state, scores)
            steps_since_best = step - int(np.max(layout.to_host(state.best.step)))
            patience_steps = config.patience * config.eval_every
            if finished or (config.patience and steps_since_best >= patience_steps):
                break
        if stopping:
            reporter.close()
            log.info(f"stopped by a signal: saved at step {step}; the same command resumes")
            return None
        state, metrics = setup.train_step(state, next(setup.batches))
        step += 1
        reporter.advance()
        if step % config.log_every == 0:
            all_diverged = log_step(setup, state, step, metrics, reporter)
            write_heartbeat("training", step=step, steps=total)
    reporter.finish(total - step)
    reporter.close()
    setup.checkpoints.close()
    return Outcome(layout.to_host(state), step, scores)


def log_step(setup: Setup, state: Any, step: int, metrics: Any, reporter: Any) -> bool:
    """Record a step's metrics. Returns whether every member has diverged."""
    import numpy as np

    from tinyjax.population.stack import unstack

    member_metrics = unstack(setup.layout.to_host(metrics), len(setup.networks))
    diverged_at = np.atleast_1d(setup.layout.to_host(state.diverged_at))
    reporter.check_divergence(diverged_at)
    reporter.record(step, "train", [{k: float(v) for k, v in m.items()} for m in member_metrics])
    reporter.update_status([m["loss"] for m in member_metrics], diverged_at)
    return bool((diverged_at >= 0).all())


def evaluate(
    setup: Setup, state: Any, step: int, reporter: Any
) -> list[dict[str, dict[str, float]]]:
    """Score the averaged weights on every suite. Returns suite -> metric -> value, per member."""
    from tinyjax.population.prediction import predict_and_score

    layout, count = setup.layout, len(setup.networks)
    host = layout.to_host(state)
    averaged = layout.place(host.variables(host.ema))
    scores: list[dict[str, dict[str, float]]] = [{} for _ in setup.networks]
    suites = predict_and_score(
        setup.predict, averaged, setup.suites, setup.task, setup.config, layout.predict_batch, count
    )
    for name, predictions, suite_scores in suites:
        for member_scores, values in zip(scores, suite_scores, strict=True):
            member_scores[name] = values
        reporter.record(step, name, suite_scores)
        reporter.record_predictions(name, setup.suites[name], predictions)
    reporter.log_evaluation(step, scores)
    return scores


def keep_best(setup: Setup, state: Any, scores: list[dict[str, dict[str, float]]]) -> Any:
    """Keep each member's averaged weights if its monitored score is the best so far."""
    import numpy as np

    suite, metric = setup.config.monitor, setup.task.monitor
    monitored = np.array([member[suite][metric] for member in scores], np.float32)
    score = setup.layout.place(monitored if len(scores) > 1 else monitored[0])
    return setup.keep_best((state, score), None)


def write_results(setup: Setup, outcome: Outcome, folder: Path, reporter: Any) -> None:
    """Write weights, report and tables; results.csv comes last and marks the run as finished."""
    import numpy as np

    from tinyjax.population.networks import weights_metadata
    from tinyjax.population.stack import unpad_member, unstack

    state, task, count = outcome.state, setup.task, len(setup.networks)
    last = unstack(state.variables(state.ema), count)
    best = unstack(state.variables(state.best.weights), count)
    diverged_at, best_steps, best_scores = map(
        np.atleast_1d, (state.diverged_at, state.best.step, state.best.score)
    )
    class_counts = [task.class_counts(setup.training, n.sample_mask) for n in setup.networks]
    rows: list[dict[str, Any]] = []
    for i, (network, scores) in enumerate(zip(setup.networks, outcome.scores, strict=True)):
        metadata = partial(weights_metadata, network, task, setup.training)
        file, id = folder / "weights" / network.member.id, network.member.id
        details: dict[str, Any] = {"step": outcome.step, "scores": scores}
        write_weights(file, unpad_member(last[i], network), metadata(**details))
        details = {"step": int(best_steps[i]), "score": float(best_scores[i])}
        best_file = file.with_name(f"{file.name}-best")
        write_weights(best_file, unpad_member(best[i], network), metadata(**details))
        for name, values in scores.items():
            row = {"member": id, "suite": name, "diverged_at": int(diverged_at[i]), **values}
            if task.scores_by_frequency:
                # The groups of an LVIS score are those of its labels.
                row |= task.scores_by_frequency(class_counts[i], values) | values
            rows.append(row)
    reporter.write_report(setup.suites, outcome.scores, class_counts)
    write_rows(reporter.tables / "results.csv", rows, rows[0])


if __name__ == "__main__":
    sys.exit(run_command(main))
