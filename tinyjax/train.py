"""Train: a config in, a run folder out.

    python -m tinyjax.train --config configs/hit_uav.py --workdir runs/hit_uav [--config.a.b=c]

The same command on the same folder resumes. Exit codes: 0 finished, 2 something to mend in what was
given, 75 told to stop (SIGTERM or Ctrl-C) and saved.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from tinyjax import config as configs
from tinyjax import runfolder
from tinyjax.checks import check, phases
from tinyjax.errors import UserError, exit_code
from tinyjax.population import space
from tinyjax.population.plan import planned
from tinyjax.population.space import Member

SWEEP = {
    "--sweep.only": {
        "action": "append",
        "dest": "only",
        "metavar": "FIELD=VALUE[,..]",
        "help": "of a sweep only the members that are so; may be given several times",
    },
    "--sweep.limit": {
        "type": int,
        "default": 0,
        "dest": "limit",
        "metavar": "N",
        "help": "of a sweep only the first members",
    },
}
STOPPED = 75  # EX_TEMPFAIL: run the same command again
PLAIN = Member(runfolder.member_id({}), {})  # the only member of a run that is no sweep
log = runfolder.log


def main(argv: list[str] | None = None) -> int:
    options = configs.options("train", __doc__, argv, SWEEP)
    config = configs.load(options.config, options.overrides)
    members = members_of(options.config, config, options.only or (), options.limit)
    with runfolder.stop_requests() as stop:
        return train(config, options.workdir, stop, members)


def members_of(spec: str, config, only: Sequence[str] = (), limit: int = 0) -> list[Member]:
    """The members of the sweep that a config file describes by `get_hyper`, or the only one of a
    plain run. only, limit: see `space.chosen`.
    """
    get_hyper = configs.names(spec).get("get_hyper")
    if get_hyper is None:
        if only or limit:
            raise UserError(f"--sweep: {spec} describes no sweep: it has no get_hyper")
        return [PLAIN]
    return space.chosen(config, space.members(config, space.points(get_hyper)), only, limit)


def train(
    config, folder: Path, stop: Sequence[int] = (), members: Sequence[Member] = (PLAIN,)
) -> int:
    """Train a network as `config` says, perhaps in phases, or all members of a sweep of it;
    everything it makes is in `folder`.

    As soon as `stop` holds something the run saves and returns `STOPPED`.
    """
    sweep = [*members] != [PLAIN]
    if sweep and config.phases:
        raise UserError("phases: a sweep has none; give each phase a sweep of its own, with init")
    runfolder.open_folder(folder, configs.to_json(config))
    runfolder.start_log()
    with runfolder.log_to(folder / "log.txt"):
        if runfolder.finished(folder):
            log.info(f"{folder}: this run is finished; its scores are in {folder / 'results.csv'}")
            return 0
        if sweep:
            return train_sweep(config, members, folder, stop)
        if config.phases:
            return train_phases(config, folder, stop)
        return train_members(config, members, folder, stop)


def train_members(
    config,
    members: Sequence[Member],
    folder: Path,
    stop: Sequence[int],
    number: int | None = None,
    how: str = "none",
    chunk: int = 0,
) -> int:
    """Train the members of a population, from their first weights to their results.

    number: of the population in a sweep; None: a plain run of one member, which reports more. how,
    chunk: see `lift`.
    """
    import jax
    import numpy as np
    from tqdm import tqdm

    from tinyjax import figures, startup, tasks
    from tinyjax import step as steps
    from tinyjax.checkpoint import Checkpoints
    from tinyjax.data.stream import batch_indices, gather
    from tinyjax.population import build
    from tinyjax.population.lift import lift
    from tinyjax.trackers import trackers

    # ---- data: small sets live on the device as uint8
    startup.keep_memory()
    started = time.time()
    log.info(f"tinyjax {version('tinyjax')} on {startup.devices()}")
    log.info(f"compiled programs are kept in {startup.keep_programs()}")
    place = folder / "populations" / str(number or 0)
    tables, plain = (folder, True) if number is None else (place, False)
    for member in members:
        check(configs.changed(config, member.point))
    config = build.config_of(config, members[0])
    kind = tasks.module(config.task)
    training = kind.load(config.data, config.data.train)
    suites = {
        name: kind.load(config.data, own, classes=training.classes)
        for name, own in config.data.suites.items()
    }
    n, height, width, channels = training.images.shape
    if config.batch > n:
        raise UserError(f"batch = {config.batch}: the training set has {n} images; give 1 to {n}")
    log.info("\n".join(kind.look(training, suites, config, folder)))
    startup.refuse_large_set(training.images)
    data = kind.on_device(training)

    # ---- networks: each by itself, then all in one
    networks = [build.network(config, member, kind, training) for member in members]
    joined = build.join(networks, kind, training)
    lifted = partial(lift, how=how, chunk=chunk)

    # ---- optimiser, step
    o, s = config.optimiser, config.schedule
    tx = steps.make_optimiser(o.name, o.momentum, o.b2, o.clip)
    schedule = steps.make_schedule(s.steps, s.warmup, s.flat, s.end)
    step = steps.make_step(joined.task, tx, schedule, joined.moving)

    def member_step(own, data):
        state, hyper = own
        index = batch_indices(hyper["seed"], state.step, config.batch, n)
        return step(state, gather(data, index), hyper)

    def train_step(state, data, hyper):
        return lifted(member_step)((state, hyper), data)

    # ---- state: from the newest checkpoint, or fresh
    checkpoints = Checkpoints(place / "checkpoints")
    first = lifted(lambda variables, _: steps.init_state(variables, tx, joined.moving))
    state = jax.jit(first)(joined.variables, None)
    rows = [each.about for each in networks]
    runfolder.write_rows(tables / "members.csv", rows, rows[0])
    log.info(_described(networks, config, (width, height)))
    log.info(f"writes to: {folder}")
    if checkpoints.latest() is not None:
        state = checkpoints.restore(state)
        log.info(f"resuming at step {np.max(state.step)} of {s.steps}")
    done = int(np.max(state.step))
    runfolder.cut_metrics(tables / "metrics.csv", done)

    begin = time.time()
    keep_best = jax.jit(lifted(lambda pair, _: steps.keep_best(*pair)))
    predict = jax.jit(lifted(joined.task.predict))
    program = jax.jit(train_step, donate_argnums=0).lower(state, data, joined.hyper).compile()
    startup.refuse_too_large(program, config.batch)
    log.info(f"compiled in {time.time() - begin:.0f} s")

    # ---- where metrics go
    closing = ExitStack()
    others = trackers(config, folder, done, closing) if plain else []

    def record(at, split, values):
        """values: of each member."""
        for member, own in zip(members, values, strict=True):
            runfolder.append_metrics(tables / "metrics.csv", member.id, at, split, own)
            for track in others:
                track(at, split, own)

    # ---- evaluation: predict once, score every suite
    def evaluate(state, at):
        averaged, found = state.variables(state.ema), {}
        scores: list[dict[str, Any]] = [{} for _ in members]
        for name, split in suites.items():
            predictions = tasks.predict_all(predict, averaged, split.images, members=len(members))
            for own, theirs in zip(scores, predictions, strict=True):
                own[name] = joined.task.score(theirs, split)
            record(at, name, [own[name] for own in scores])
            if plain:
                found[name] = kind.in_file_pixels(predictions[0], split)
                kind.samples(split, found[name], folder / "samples" / f"{name}.png")
        if plain:
            figures.curves(folder / "metrics.csv", folder / "figures", kind.SCORES)
        for name in suites:
            log.info(f"step {at}: {name} {_said([own[name] for own in scores], kind.SCORES)}")
        return scores, found

    # ---- loop
    every, lost = config.every, False
    bar = tqdm(total=s.steps, initial=done, unit="step", smoothing=0.1, disable=None)
    while True:
        over = done == s.steps or lost
        due = over or (done > 0 and done % every.evaluate == 0)
        stopping = bool(stop)
        if due or stopping or (done > 0 and done % every.save == 0):
            checkpoints.save(done, state)  # before the evaluation: what fails there costs nothing
        if due:
            if plain:
                refuse_divergence(state, folder)
            scores, found = evaluate(state, done)
            ranked = np.array([own[config.best_on][kind.SCORE] for own in scores], np.float32)
            state = keep_best((state, ranked.reshape(state.step.shape)), None)
            waited = done - int(np.max(state.best.step))
            if over or (config.patience and waited >= config.patience * every.evaluate):
                break
        if stopping:
            closing.close()
            log.info(f"told to stop: saved at step {done}; the same command goes on from there")
            return STOPPED
        state, metrics = program(state, data, joined.hyper)
        done += 1
        bar.update()
        if done % every.log == 0:
            values = build.each_of(jax.device_get(metrics), len(members))
            stopped = np.atleast_1d(state.stopped_at)
            if plain:
                refuse_divergence(state, folder)
            record(done, "train", [{k: float(v) for k, v in own.items()} for own in values])
            lost = bool((stopped >= 0).all())
            rate = (bar.format_dict["rate"] or 0) * config.batch * len(members)
            mean = np.mean([own["loss"] for own in values])
            bar.set_postfix_str(f"loss {mean:.3f}, {rate:.0f} images/s{_held(stopped)}")
    bar.close()
    closing.close()
    checkpoints.close()

    # ---- what a run leaves behind; results.csv comes last and says that it is finished
    state = jax.device_get(state)
    lasts = build.each_of(state.variables(state.ema), len(members))
    bests = build.each_of(state.variables(state.best.weights), len(members))
    stopped, best_steps, best_scores = map(
        np.atleast_1d, (state.stopped_at, state.best.step, state.best.score)
    )
    for i, (network, last, best) in enumerate(zip(networks, lasts, bests, strict=True)):
        about = {
            **network.about,
            "frame": (height, width, channels),
            "config": network.config.to_dict(),
            "classes": training.classes,
        }
        file = folder / "weights" / network.member.id
        ends = {"step": done, "scores": scores[i]}
        runfolder.write_weights(file, build.cut_out(last, network), {**about, **ends})
        ends = {"step": int(best_steps[i]), "score": float(best_scores[i])}
        file = file.with_name(f"{file.name}-best")
        runfolder.write_weights(file, build.cut_out(best, network), {**about, **ends})
    if plain:
        kind.report(folder, suites, found, scores[0])
    rows = [
        {"member": member.id, "suite": name, "stopped_at": int(stopped[i]), **values}
        for i, member in enumerate(members)
        for name, values in scores[i].items()
    ]
    runfolder.write_rows(tables / "results.csv", rows, rows[0])
    log.info(f"finished after {time.time() - started:.0f} s; everything is in {folder}")
    for name in suites if plain else ():
        picture = folder / "samples" / f"{name}.png"
        log.info(f"{name}: {_said([scores[0][name]], kind.SCORES)}, pictures in {picture}")
    return 0


def train_sweep(config, members: Sequence[Member], folder: Path, stop: Sequence[int]) -> int:
    """Train the members of a sweep, one population after the other; those that are finished are
    not trained again. The tables of all of them become the sweep's.
    """
    started = time.time()
    populations = planned(config, members, folder / "plan.json")
    everyone = {member.id: member for member in members}
    for number, population in enumerate(populations):
        if runfolder.finished(folder / "populations" / str(number)):
            continue
        own = [everyone[id] for id in population.members]
        log.info(f"population {number + 1} of {len(populations)}: {len(own)} of {len(members)}")
        if code := train_members(config, own, folder, stop, number, *population[1:]):
            return code
    places = [folder / "populations" / str(number) for number in range(len(populations))]
    for table in ("members.csv", "metrics.csv", "results.csv"):  # the last says: finished
        rows = [row for place in places for row in runfolder.read_rows(place / table)]
        runfolder.write_rows(folder / table, rows, dict.fromkeys(name for r in rows for name in r))
    log.info(f"finished after {time.time() - started:.0f} s; everything is in {folder}")
    return 0


def train_phases(config, folder: Path, stop: Sequence[int]) -> int:
    """Train in phases: each is a run of its own, in `folder`/phase1 and so on, that starts from the
    weights of the one before. The last one's weights are also the whole run's.
    """
    started = time.time()
    places = [folder / f"phase{number + 1}" for number in range(len(config.phases))]
    runs = phases(config, places)  # all of them are checked before the first begins
    for number, (own, place) in enumerate(zip(runs, places, strict=True), start=1):
        log.info(f"phase {number} of {len(runs)}: {config.phases[number - 1]}")
        if runfolder.finished(place):
            continue
        # Not compared with what is there, as a folder is that might be another run's: this one is
        # part of ours, and where both were moved the start of the phase has another path.
        runfolder.begin(place, configs.to_json(own))
        with runfolder.log_to(place / "log.txt"):
            if code := train_members(own, [PLAIN], place, stop):
                return code
    runfolder.copy_weights(places[-1], folder)
    for table in ("members.csv", "results.csv"):  # the latter says that the run is finished
        rows = [
            {"phase": number, **row}
            for number, place in enumerate(places, start=1)
            for row in runfolder.read_rows(place / table)
        ]
        runfolder.write_rows(folder / table, rows, dict.fromkeys(name for r in rows for name in r))
    log.info(f"finished after {time.time() - started:.0f} s; everything is in {folder}")
    return 0


def _said(scores: Sequence[Mapping[str, float]], names) -> str:
    """Of several members the lowest and the highest."""

    def said(values):
        low, high = min(values), max(values)
        return f"{low:.3f}" if len(values) == 1 else f"{low:.3f} to {high:.3f}"

    return ", ".join(f"{name} {said([own[name] for own in scores])}" for name in names)


def _held(stopped) -> str:
    return f", {(stopped >= 0).sum()} of {len(stopped)} stopped" if (stopped >= 0).any() else ""


def _described(networks, config, size: tuple[int, int]) -> str:
    """What is trained, for the log: one network in full, of several the range."""
    steps, (height, width) = config.schedule.steps, config.crop
    how = f"{steps} steps of {config.batch} windows of {width} x {height}"
    abouts = [each.about for each in networks]
    if len(networks) > 1:
        low, *_, high = sorted(about["parameters"] for about in abouts)
        return f"model: {len(networks)} networks of {low:,} to {high:,} parameters; {how}"
    (about,), (network,) = abouts, networks
    trained, whole = about["trained_parameters"], about["parameters"]
    line = (
        f"model: {about['backbone']}, {whole:,} parameters, "
        f"{about['backbone_parameters']:,} of them in the backbone; "
        f"{about['multiply_adds'] / 1e6:.1f} M multiply-adds a frame of {size[0]} x {size[1]}\n"
        f"trains: {f'{trained:,} of the' if trained < whole else 'all'} parameters"
        f"{'' if network.config.init else ' from scratch'}, seed {about['seed']}, {how}"
    )
    return "\n".join([line, *network.said])


def refuse_divergence(state, folder: Path) -> None:
    """Raise UserError if the member was stopped by a loss or gradient that is not finite."""
    if (stopped := int(state.stopped_at)) >= 0:
        raise UserError(
            f"{folder}: loss or gradient is not finite at step {stopped}; "
            "give a lower optimiser.lr and another --workdir"
        )


class _Callable(ModuleType):
    """`tinyjax.train` is this module, and what one calls from Python too."""

    def __call__(self, config, folder: str | Path) -> int:
        """Train one network as `config`, a ConfigDict or the spec "configs/x.py:args", says; or
        all members of a sweep, if the spec's file describes one.

        Everything it makes is in `folder`; the same call resumes. Returns 0, or `STOPPED`. Raises
        UserError for a mistake in what is given.
        """
        members = [PLAIN]
        if isinstance(config, str):
            spec, config = config, configs.load(config)
            members = members_of(spec, config)
        return train(config, Path(folder), members=members)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    sys.exit(exit_code(main))
