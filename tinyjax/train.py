"""Train: a config in, a run folder out.

    python -m tinyjax.train --config configs/hit_uav.py --workdir runs/hit_uav [--config.a.b=c]

The same command on the same folder resumes. Exit codes: 0 finished, 2 something to mend in what was
given, 75 told to stop (SIGTERM or Ctrl-C) and saved.
"""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from tinyjax import config as configs
from tinyjax import runfolder
from tinyjax.errors import UserError, exit_code, suggest

STOPPED = 75  # EX_TEMPFAIL: run the same command again
BOUNDS = {  # of numbers that would do something else than asked, and not say so
    "seed": (0, 2**31 - 1),
    **dict.fromkeys(("batch", "schedule.steps"), (1, math.inf)),
    **dict.fromkeys(("every.log", "every.save", "every.evaluate"), (1, math.inf)),
    **dict.fromkeys(("model.eps", "augment.mixup", "augment.cutmix"), (0, math.inf)),
    "optimiser.backbone": (0, math.inf),
    "optimiser.layer_decay": (0, 1),
}
log = runfolder.log


def main(argv: list[str] | None = None) -> int:
    options = configs.options("train", __doc__, argv)
    config = configs.load(options.config, options.overrides)
    with runfolder.stop_requests() as stop:
        return train(config, options.workdir, stop)


def train(config, folder: Path, stop: Sequence[int] = ()) -> int:
    """Train a network as `config` says, perhaps in phases; everything it makes is in `folder`.

    As soon as `stop` holds something the run saves and returns `STOPPED`.
    """
    runfolder.open_folder(folder, configs.to_json(config))
    runfolder.start_log()
    with runfolder.log_to(folder / "log.txt"):
        if runfolder.finished(folder):
            log.info(f"{folder}: this run is finished; its scores are in {folder / 'results.csv'}")
            return 0
        return (train_phases if config.phases else train_one)(config, folder, stop)


def train_one(config, folder: Path, stop: Sequence[int]) -> int:
    """One training, from the first weights to the results, in a folder that is open."""
    check(config)

    import jax
    import numpy as np
    from tqdm import tqdm

    from tinyjax import figures, startup, tasks
    from tinyjax import step as steps
    from tinyjax.checkpoint import Checkpoints
    from tinyjax.data.stream import batch_indices, gather
    from tinyjax.models import count
    from tinyjax.trackers import trackers
    from tinyjax.transfer import freeze, start

    # ---- data: small sets live on the device as uint8
    startup.keep_memory()
    started = time.time()
    log.info(f"tinyjax {version('tinyjax')} on {startup.devices()}")
    log.info(f"compiled programs are kept in {startup.keep_programs()}")
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

    # ---- task, first weights, what of them trains
    weights = start.read(config.init, config.model.backbone) if config.init else None
    if weights and not config.model.eps:
        config = configs.changed(config, {"model.eps": weights.eps})
    task = kind.make_task(config, training.classes, channels)
    variables = task.init(config.seed)
    ours = {**variables.params, **variables.stats}
    if weights:
        fitted = start.fit(weights, ours, config.init_new, training.classes)
        variables = steps.Variables(*({p: fitted.leaves[p] for p in tree} for tree in variables))
    rates = freeze.rates(ours, config)

    # ---- optimiser, step
    o, s = config.optimiser, config.schedule
    tx = steps.make_optimiser(o.name, o.momentum, o.b2, o.clip)
    schedule = steps.make_schedule(s.steps, s.warmup, s.flat, s.end)
    moving = steps.moving(rates)
    step = steps.make_step(task, tx, schedule, moving)
    hyper = tasks.hyper_of(config, {p: rates[p] for p in variables.params})

    def train_step(state, data, hyper):
        index = batch_indices(hyper["seed"], state.step, config.batch, n)
        return step(state, gather(data, index), hyper)

    # ---- state: from the newest checkpoint, or fresh
    checkpoints = Checkpoints(runfolder.checkpoint_folder(folder))
    state = jax.jit(lambda variables: steps.init_state(variables, tx, moving))(variables)
    model = kind.make_model(config, len(training.classes))
    sizes = {path: leaf.size for path, leaf in variables.params.items()}
    trained = sum(size for path, size in sizes.items() if rates[path])
    about: dict[str, Any] = {
        "parameters": sum(sizes.values()),
        "backbone_parameters": sum(
            n for p, n in sizes.items() if p.startswith(("backbone/stem/", "backbone/stage"))
        ),
        "trained_parameters": trained,
        "multiply_adds": count.multiply_adds(model, (1, height, width, channels)),
    }
    log.info(
        f"model: {config.model.backbone}, {about['parameters']:,} parameters, "
        f"{about['backbone_parameters']:,} of them in the backbone; "
        f"{about['multiply_adds'] / 1e6:.1f} M multiply-adds a frame of {width} x {height}\n"
        f"trains: {f'{trained:,} of the' if trained < about['parameters'] else 'all'} parameters"
        f"{'' if weights else ' from scratch'}, seed {config.seed}, {s.steps} steps of "
        f"{config.batch} windows of {config.crop[1]} x {config.crop[0]}\n"
        f"writes to: {folder}"
    )
    if weights:
        log.info(start.table(fitted, weights))
    if set(rates.values()) != {1.0}:
        log.info(freeze.table(rates, sizes))
    if warning := start.never_trained(fitted.new if weights else ours, rates):
        log.warning(warning)
    member = runfolder.member_id({})
    runfolder.write_rows(
        folder / "members.csv",
        [{"member": member, "seed": config.seed, "backbone": config.model.backbone, **about}],
        ("member", "seed", "backbone", *about),
    )
    if checkpoints.latest() is not None:
        state = checkpoints.restore(state)
        log.info(f"resuming at step {int(state.step)} of {s.steps}")
    runfolder.cut_metrics(folder / "metrics.csv", int(state.step))

    begin = time.time()
    keep_best = jax.jit(steps.keep_best)
    program = jax.jit(train_step, donate_argnums=0).lower(state, data, hyper).compile()
    startup.refuse_too_large(program, config.batch)
    log.info(f"compiled in {time.time() - begin:.0f} s")

    # ---- where metrics go
    closing = ExitStack()
    others = trackers(config, folder, int(state.step), closing)

    def record(at, split, values):
        runfolder.append_metrics(folder / "metrics.csv", at, split, values)
        for track in others:
            track(at, split, values)

    # ---- evaluation: predict once, score every suite
    def evaluate(state, at):
        averaged, scores, found = state.variables(state.ema), {}, {}
        for name, split in suites.items():
            predictions = tasks.predict_all(task, averaged, split.images)
            scores[name] = task.score(predictions, split)
            record(at, name, scores[name])
            found[name] = kind.in_file_pixels(predictions, split)
            kind.samples(split, found[name], folder / "samples" / f"{name}.png")
        figures.curves(folder / "metrics.csv", folder / "figures", kind.SCORES)
        log.info(
            f"step {at}: {'; '.join(f'{n} {_said(v, kind.SCORES)}' for n, v in scores.items())}"
        )
        return scores, found

    # ---- loop
    every, done = config.every, int(state.step)
    bar = tqdm(total=s.steps, initial=done, unit="step", smoothing=0.1, disable=None)
    while True:
        due = done == s.steps or (done > 0 and done % every.evaluate == 0)
        stopping = bool(stop)
        if due or stopping or (done > 0 and done % every.save == 0):
            checkpoints.save(done, state)  # before the evaluation: what fails there costs nothing
        if due:
            refuse_divergence(state, folder)
            scores, found = evaluate(state, done)
            state = keep_best(state, np.float32(scores[config.best_on][kind.SCORE]))
            waited = done - int(state.best.step)
            if done == s.steps or (config.patience and waited >= config.patience * every.evaluate):
                break
        if stopping:
            closing.close()
            log.info(f"told to stop: saved at step {done}; the same command goes on from there")
            return STOPPED
        state, metrics = program(state, data, hyper)
        done += 1
        bar.update()
        if done % every.log == 0:
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            refuse_divergence(state, folder)
            record(done, "train", values)
            rate = (bar.format_dict["rate"] or 0) * config.batch
            bar.set_postfix_str(f"loss {values['loss']:.3f}, {rate:.0f} images/s")
    bar.close()
    closing.close()
    checkpoints.close()

    # ---- what a run leaves behind; results.csv comes last and says that it is finished
    about |= {
        "frame": (height, width, channels),
        "config": config.to_dict(),
        "classes": training.classes,
        "seed": config.seed,
    }
    last = {**about, "step": done, "scores": scores}
    best = {**about, "step": int(state.best.step), "score": float(state.best.score)}
    file = folder / "weights" / member
    runfolder.write_weights(file, state.variables(state.ema), last)
    runfolder.write_weights(Path(f"{file}-best"), state.variables(state.best.weights), best)
    kind.report(folder, suites, found, scores)
    rows = [{"member": member, "suite": name, **values} for name, values in scores.items()]
    runfolder.write_rows(folder / "results.csv", rows, rows[0])
    log.info(f"finished after {time.time() - started:.0f} s; everything is in {folder}")
    for name, values in scores.items():
        picture = folder / "samples" / f"{name}.png"
        log.info(f"{name}: {_said(values, kind.SCORES)}, pictures in {picture}")
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
            if code := train_one(own, place, stop):
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


def phases(config, places: Sequence[Path]) -> list[Any]:
    """The configs of a run's phases, which are to be trained in `places`.

    Raises UserError for a phase that is none, and as `check` does for each.
    """
    found = []
    for before, fields in zip(("", *places), config.phases, strict=False):
        if not isinstance(fields, Mapping):
            raise UserError(f"phases: {fields!r}: give a dict, field -> value, for each phase")
        if fields.keys() & {"init", "phases"}:
            raise UserError(
                f"phases: {fields!r}: a phase has no init and no phases of its own; the first "
                "starts from the config's init, each other one from the one before"
            )
        start = {"init": str(before), "init_new": ()} if before else {}
        found.append(configs.changed(config, {"phases": (), **start, **fields}))
        check(found[-1])
    return found


def _said(scores, names) -> str:
    return ", ".join(f"{name} {scores[name]:.3f}" for name in names)


def check(config) -> None:
    """Raise UserError for mistakes in a config, before data and network are there to show more."""
    from tinyjax.transfer import freeze

    fields = dict(runfolder.leaves(config.to_dict()))
    for name, (least, most) in BOUNDS.items():
        value = fields.get(name, least)  # a detector has no augment.mixup
        if not least <= value <= most or value == math.inf:
            wanted = f"{least} or more" if most == math.inf else f"{least} to {most}"
            raise UserError(f"{name} = {value}: give {wanted}")
    if config.best_on not in config.data.suites:
        known = suggest(config.best_on, config.data.suites)
        raise UserError(f"best_on = {config.best_on!r}: no such suite; {known}")
    if "train" in config.data.suites:
        raise UserError(
            "data.suites: 'train' is what metrics.csv calls the training itself; give another name"
        )
    if config.init_new and not config.init:
        raise UserError(
            f"init_new = {config.init_new!r}: there is no init, so all of it is new; give one"
        )
    freeze.rules_of(config.freeze)


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
        """Train one network as `config`, a ConfigDict or the spec "configs/x.py:args", says.

        Everything it makes is in `folder`; the same call resumes. Returns 0, or `STOPPED`. Raises
        UserError for a mistake in what is given.
        """
        if isinstance(config, str):
            config = configs.load(config)
        return train(config, Path(folder))


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    sys.exit(exit_code(main))
