"""Train: a config in, a run folder out.

    python -m tinyjax.train --config configs/hit_uav.py --workdir runs/hit_uav [--config.a.b=c]

The same command on the same folder resumes. Exit codes: 0 finished, 2 something to mend in what was
given, 69 not the devices or processes that there should be, 75 told to stop (SIGTERM or Ctrl-C) and
saved.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import lru_cache, partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

from tinyjax import config as configs
from tinyjax.config.validation import check
from tinyjax.errors import UserError, exit_code
from tinyjax.population import plan
from tinyjax.population import sweep as runs
from tinyjax.population.options import (
    FLAGS,
    SINGLE_RUN,
    parse_member_batching,
    parse_shard,
    select_members,
)
from tinyjax.population.search_space import Member
from tinyjax.run import distributed, progress, run_folder
from tinyjax.run.csv_files import Metrics, write_rows
from tinyjax.run.heartbeat import Heartbeat
from tinyjax.run.logs import log, log_to, start_log
from tinyjax.run.weights import write_weights

STOPPED = 75  # EX_TEMPFAIL: run the same command again


def main(argv: list[str] | None = None) -> int:
    options = configs.parse_options("train", __doc__, argv, {**FLAGS, **distributed.FLAGS})
    config = configs.load(options.config, options.overrides)
    members = select_members(options.config, config, options.only or (), options.limit)
    how, shard = parse_member_batching(options.lift), parse_shard(options.shard)
    if options.dry_run:
        found = plan.make_plan(members, plan.cost_model(config), how)
        print(plan.plan_table(config, members, found))
        return 0
    from tinyjax.run import runtime

    runtime.tune_allocator()  # before anything looks for devices
    with distributed.process_group(options.processes, options.wait):
        distributed.check_devices(options.expect)
        with distributed.stop_requests() as stop:
            return train(config, options.workdir, stop, members, shard, how)


def train(
    config,
    folder: Path,
    stop: Sequence[int] = (),
    members: Sequence[Member] = (SINGLE_RUN,),
    shard: tuple[int, int] = (0, 1),
    how: str | None = None,
) -> int:
    """Train a network as `config` says, perhaps in phases, or all members of a sweep of it;
    everything it makes is in `folder`. shard: (i, n), of a sweep only every n-th population. how:
    its members are lifted, see `plan.populations`.

    As soon as `stop` holds something the run saves and returns `STOPPED`.
    """
    from tinyjax.run import runtime

    sweep = [*members] != [SINGLE_RUN]
    if sweep and config.phases:
        raise UserError("phases: a sweep has none; give each phase a sweep of its own, with init")
    if how and not sweep:
        raise UserError(
            f"--member-batching {how}: this is a plain run; the members of a sweep are lifted"
        )
    if shard != (0, 1) and not sweep:
        raise UserError(f"--shard {shard[0]}/{shard[1]}: this is a plain run; a sweep has shards")
    runtime.tune_allocator()
    leads = distributed.is_main_process()
    run_folder.open_folder(folder, configs.to_json(config), leads)
    distributed.barrier("opened")
    if not (folder / "config.json").exists():
        raise UserError(f"--workdir {folder}: give a folder that all processes share")
    start_log(leads)
    i, n = shard
    beat = Heartbeat(folder / "heartbeats" / f"{i}-of-{n}.{distributed.process_index()}.json").write
    one = partial(train_members, beat=beat)
    with log_to(folder / ("log.txt" if n == 1 else f"log-{i}-of-{n}.txt"), leads):
        if sweep:
            code = runs.train_sweep(config, members, folder, stop, shard, how, one)
        elif run_folder.log_if_finished(folder):
            code = 0
        elif config.phases:
            code = runs.train_phases(config, folder, stop, one)
        else:
            code = one(config, members, folder, stop)
        beat("stopped" if code else "finished")
        return code


def train_members(
    config,
    members: Sequence[Member],
    folder: Path,
    stop: Sequence[int],
    number: int | None = None,
    how: str = "none",
    chunk: int = 0,
    bar: Any = None,
    beat: Callable[..., None] = lambda *_, **__: None,
) -> int:
    """Train the members of a population, from their first weights to their results.

    number: of the population in a sweep; None: a plain run of one member, which reports more. how,
    chunk: see `lift`. bar: a sweep's, in steps of single members. beat: see `Heartbeat.write`.
    """
    import jax
    import numpy as np

    from tinyjax import step as steps
    from tinyjax import tasks
    from tinyjax.population import measurements, program, stack
    from tinyjax.population.devices import device_layout
    from tinyjax.population.input_pipeline import make_input_pipeline
    from tinyjax.reporting import figures
    from tinyjax.run import runtime
    from tinyjax.run.checkpoints import Checkpoints
    from tinyjax.run.trackers import trackers

    # ---- data: small sets live on the device as uint8, others are streamed
    started, leads = time.time(), distributed.is_main_process()
    log.info(f"tinyjax {version('tinyjax')} on {runtime.describe_devices()}")
    log.info(f"compiled programs are kept in {runtime.enable_compile_cache()}")
    place = folder / "populations" / str(number or 0)
    tables, plain = (folder, True) if number is None else (place, False)
    for member in members:
        check(configs.with_fields(config, member.point))
    base, config = (
        config,
        stack.member_config(config, members[0]),
    )  # theirs is the same where it counts
    kind, total = tasks.module(config.task), config.schedule.steps
    training, suites = _splits(config.task, configs.to_json(config.data))
    n, height, width, channels = training.images.shape
    if config.batch > n:
        raise UserError(f"batch = {config.batch}: the training set has {n} images; give 1 to {n}")
    if leads:
        log.info("\n".join(kind.look(training, suites, config, folder)))
    if not config.data.stream:
        runtime.check_dataset_fits(training.images)

    # ---- networks: each by itself, then all in one, spread over the devices
    networks = [stack.build_network(base, member, kind, training) for member in members]
    devices = device_layout(len(members), config.batch)
    joined = stack.stack_members(networks, kind, training, devices.axes)
    supply = make_input_pipeline(kind, training, config, base.seed, devices)
    variables, hyper, parts = devices.spread((joined.variables, joined.hyper, joined.data))

    lifted = program.over_members(devices, how, chunk)
    if "regularizer" in hyper:
        # Every device measures on whole batches: what is the mean of an example's has no shards.
        whole = stack.stack_members(networks, kind, training) if devices.axes else joined
        own = (variables, hyper, parts)
        log.info(f"pull: by {config.regularizer.name}, measured before the first step")
        strengths = measurements.regularizer_arrays(config, whole, own, supply, n, lifted)
        hyper["regularizer"] |= devices.spread(strengths)

    # ---- state: from the newest checkpoint, or fresh
    checkpoints = Checkpoints(place / "checkpoints")
    fresh, train_step = program.make_training(config, joined, devices, how, chunk)
    state = jax.jit(fresh)(variables)
    rows = [stack.members_row(each) for each in networks]
    columns = dict.fromkeys(field for row in rows for field in row)
    if leads:
        write_rows(tables / "members.csv", rows, columns)
    log.info(stack.describe(networks, config, (width, height)))
    log.info(f"writes to: {folder}")
    if checkpoints.latest() is not None:
        state = devices.spread(checkpoints.restore(devices.gathered(state)))
        log.info(f"resuming at step {np.max(devices.gathered(state.step))} of {total}")
    done = int(np.max(devices.gathered(state.step)))
    metrics = Metrics(tables / "metrics.csv", done) if leads else None

    begin, alive = time.time(), {"population": number or 0, "steps": total}
    beat("compiling", **alive)
    keep_best = jax.jit(lifted(lambda pair, _: steps.keep_best(*pair)))
    predict = devices.by_rows(jax.jit(lifted(joined.task.predict, split=True)))
    batches = supply(done)
    batches, rest = chain([first := next(batches)], batches), (hyper, parts)
    compiled = jax.jit(train_step, donate_argnums=0).lower(state, first, *rest).compile()
    runtime.check_step_fits(compiled, config.batch, devices.at_once(how, chunk))
    log.info(f"compiled in {time.time() - begin:.0f} s")

    # ---- where metrics go
    closing = ExitStack()
    others = trackers(config, folder, done, closing) if plain and leads else []

    def record(at, split, values):
        """values: of each member."""
        if not metrics:
            return
        for member, own in zip(members, values, strict=True):
            metrics.add(member.id, at, split, own)
            for track in others:
                track(at, split, own)

    # ---- evaluation: predict once, score every suite
    def evaluate(state, at):
        whole, found = devices.gathered(state), {}
        averaged = devices.spread(whole.variables(whole.ema))
        scores: list[dict[str, Any]] = [{} for _ in members]
        for name, split in suites.items():
            predictions = tasks.predict_all(
                predict, averaged, split.images, devices.rows, len(members)
            )
            for own, values in zip(scores, joined.task.score(predictions, split), strict=True):
                own[name] = values
            record(at, name, [own[name] for own in scores])
            if plain and leads:
                found[name] = kind.in_file_pixels(predictions[0], split)
                kind.samples(split, found[name], folder / "samples" / f"{name}.png")
        if metrics:
            metrics.written()
        if plain and leads:
            figures.curves(folder / "metrics.csv", folder / "figures", kind.SCORES)
        for name in suites:
            log.info(f"step {at}: {name} {_said([own[name] for own in scores], kind.SCORES)}")
        return scores, found

    # ---- loop
    lost = False
    if plain:
        bar = progress.progress_bar(
            total=total, initial=done, unit="step", smoothing=0.1, disable=not leads
        )
    else:
        bar.update(done * len(members))
    while True:
        over = done == total or lost
        due = over or (done > 0 and done % config.eval_every == 0)
        stopping = distributed.stop_requested(stop)
        if due or stopping or (done > 0 and done % config.save_every == 0):
            # before the evaluation: what fails there costs nothing
            if metrics:
                metrics.written()
            checkpoints.save(done, devices.gathered(state))
        if due:
            if plain:
                refuse_divergence(devices.gathered(state.diverged_at), folder)
            scores, found = evaluate(state, done)
            ranked = np.array([own[config.monitor][kind.SCORE] for own in scores], np.float32)
            ranked = ranked if len(members) > 1 else ranked[0]
            state = keep_best((state, devices.spread(ranked)), None)
            waited = done - int(np.max(devices.gathered(state.best.step)))
            if over or (config.patience and waited >= config.patience * config.eval_every):
                break
        if stopping:
            closing.close()
            log.info(f"told to stop: saved at step {done}; the same command goes on from there")
            return STOPPED
        state, logged = compiled(state, next(batches), *rest)
        done += 1
        bar.update(len(members))
        if done % config.log_every == 0:
            values = stack.unstack(devices.gathered(logged), len(members))
            stopped = np.atleast_1d(devices.gathered(state.diverged_at))
            if plain:
                refuse_divergence(stopped, folder)
            beat("training", step=done, **alive)
            record(done, "train", [{k: float(v) for k, v in own.items()} for own in values])
            lost = bool((stopped >= 0).all())
            rate = (bar.format_dict["rate"] or 0) * config.batch
            mean = np.mean([own["loss"] for own in values])
            bar.set_postfix_str(f"loss {mean:.3f}, {rate:.0f} images/s{_held(stopped)}")
    if plain:
        bar.close()
    else:
        bar.update((total - done) * len(members))  # where all of them stopped early
    closing.close()
    checkpoints.close()

    # ---- what a run leaves behind; results.csv comes last and says that it is finished
    state = devices.gathered(state)
    if not leads:
        return 0
    lasts = stack.unstack(state.variables(state.ema), len(members))
    bests = stack.unstack(state.variables(state.best.weights), len(members))
    tails = [kind.tail(training, network.used) for network in networks]
    stopped, best_steps, best_scores = map(
        np.atleast_1d, (state.diverged_at, state.best.step, state.best.score)
    )
    for i, (network, last, best) in enumerate(zip(networks, lasts, bests, strict=True)):
        about = {
            **network.about,
            "frame": (height, width, channels),
            "config": network.config.to_dict(),
            "classes": training.classes,
            "training": tails[i],
        }
        file = folder / "weights" / network.member.id
        ends = {"step": done, "scores": scores[i]}
        write_weights(file, stack.unpad_member(last, network), {**about, **ends})
        ends = {"step": int(best_steps[i]), "score": float(best_scores[i])}
        file = file.with_name(f"{file.name}-best")
        write_weights(file, stack.unpad_member(best, network), {**about, **ends})
    if plain:
        kind.report(folder, suites, found, scores[0], tails[0])
    rows = [
        {"member": member.id, "suite": name, "diverged_at": int(stopped[i]), **values}
        | kind.by_tail(tails[i], values)
        for i, member in enumerate(members)
        for name, values in scores[i].items()
    ]
    write_rows(tables / "results.csv", rows, rows[0])
    log.info(f"finished after {time.time() - started:.0f} s; everything is in {folder}")
    for name in suites if plain else ():
        picture = folder / "samples" / f"{name}.png"
        log.info(f"{name}: {_said([scores[0][name]], kind.SCORES)}, pictures in {picture}")
    return 0


@lru_cache(maxsize=1)
def _splits(task: str, data: str) -> tuple[Any, dict[str, Any]]:
    """The training split and the suites of a config's `data` part as JSON; the populations of a
    sweep mostly have the same.
    """
    from tinyjax import tasks

    kind, group = tasks.module(task), configs.from_json(data)
    training = kind.load(group, group.train)
    suites = {
        name: kind.load(group, own, classes=training.classes)
        for name, own in group.suites.items()
        if "corrupt" not in own  # `evaluate` makes dozens of passes of such
    }
    return training, suites


def _said(scores: Sequence[Mapping[str, float]], names) -> str:
    """Of several members the lowest and the highest."""

    def said(values):
        low, high = min(values), max(values)
        return f"{low:.3f}" if len(values) == 1 else f"{low:.3f} to {high:.3f}"

    return ", ".join(f"{name} {said([own[name] for own in scores])}" for name in names)


def _held(stopped) -> str:
    return f", {(stopped >= 0).sum()} of {len(stopped)} stopped" if (stopped >= 0).any() else ""


def refuse_divergence(diverged_at, folder: Path) -> None:
    """Raise UserError if the member was stopped by a loss or gradient that is not finite."""
    if (stopped := diverged_at.item()) >= 0:
        raise UserError(
            f"{folder}: loss or gradient is not finite at step {stopped}; "
            "give a lower optimizer.lr and another --workdir"
        )


class _Callable(ModuleType):
    """`tinyjax.train` is this module, and what one calls from Python too."""

    def __call__(self, config, folder: str | Path) -> int:
        """Train one network as `config`, a ConfigDict or the spec "configs/x.py:args", says; or
        all members of a sweep, if the spec's file describes one.

        Everything it makes is in `folder`; the same call resumes. Returns 0, or `STOPPED`. Raises
        UserError for a mistake in what is given.
        """
        members = [SINGLE_RUN]
        if isinstance(config, str):
            spec, config = config, configs.load(config)
            members = select_members(spec, config)
        return train(config, Path(folder), members=members)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    sys.exit(exit_code(main))
