"""Average weights of finished runs, and score what comes of it on all suites.

    python -m tinyjax.average --workdir runs/fine --start runs/probed [--parts 0,0.5,1]
    python -m tinyjax.average --workdir runs/sweep

Of a run: networks on the way from the weights it started from to those it ended with (WiSE-FT); of
a run in phases the start is by default the phase before the last. Of a sweep: for each kind of
network, by backbone and parameters, the uniform and the greedy soup of its members, which should
share their start; the greedy one goes by the suite that config.monitor names. BatchNorm's moments
are estimated anew. Writes <workdir>/averages/: results.csv, a figure, and the weights as
.safetensors and .json.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tinyjax import config as configs
from tinyjax.errors import UserError, exit_code
from tinyjax.run.csv_files import read_rows, write_rows
from tinyjax.run.logs import log, start_log
from tinyjax.run.weights import write_weights

FLAGS: dict[str, dict[str, Any]] = {
    "--start": {"metavar": "DIR", "type": Path, "help": "the run that a plain run started from"},
    "--parts": {
        "metavar": "A,B,..",
        "default": "0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1",
        "help": "of the end, the rest being of the start; default: in steps of 0.1",
    },
    "--batches": {
        "type": int,
        "default": 100,
        "metavar": "N",
        "help": "of training that BatchNorm's moments are estimated on, at most an epoch",
    },
}


def main(argv: list[str] | None = None) -> int:
    options = configs.parse_options("average", __doc__, argv, FLAGS, needs=("workdir",))
    folder, parts = Path(options.workdir), _parts(options.parts)
    if options.batches < 1:
        raise UserError(f"--batches {options.batches}: give 1 or more")

    from tinyjax import tasks
    from tinyjax.population import plan, stack
    from tinyjax.run import runtime

    ids = [id for own in plan.populations_of_run(folder) for id in own]
    sweep = (folder / "plan.json").exists()
    if sweep and options.start:
        raise UserError(f"--start: {folder} is a sweep, whose members are averaged; a run has one")
    runtime.tune_allocator()
    runtime.enable_compile_cache()
    start_log()
    config = configs.from_run(json.loads((folder / "config.json").read_text()))
    kind = tasks.module(config.task)
    training = kind.load(config.data, config.data.train)
    suites = {
        name: kind.load(config.data, own, classes=training.classes)
        for name, own in config.data.suites.items()
        if "corrupt" not in own
    }

    def networks_of(place: Path, ids: Sequence[str]) -> list[stack.Network]:
        return stack.load_trained(place, ids, "last", {}, kind, training)

    def scorer(like: stack.Network, members: int):
        return _scorer(like, members, kind, training, suites, options.batches)

    if sweep:
        found = _soups(folder, networks_of(folder, ids), scorer, config.monitor, kind.SCORE)
    else:
        (start,) = networks_of(_start_of(folder, options.start), ids)
        (end,) = networks_of(folder, ids)
        found = _between(start, end, parts, scorer)
    rows = []
    for name, (about, network, scores) in found.items():
        described = {
            **network.about,
            "frame": training.images.shape[1:],
            "config": network.config.to_dict(),
            "classes": training.classes,
            "training": kind.tail(training, network.used),
            "average": about,
            "scores": scores,
        }
        write_weights(folder / "averages" / name, network.variables, described)
        rows += [{"average": name, **about, "suite": s, **own} for s, own in scores.items()]
    file = folder / "averages" / "results.csv"
    write_rows(file, rows, rows[0])
    _tell(rows, kind, folder)
    return 0


# ---- what is averaged: name -> what it is, the network, its scores


def _between(start, end, parts: Sequence[float], scorer: Callable[..., Any]) -> dict[str, Any]:
    from tinyjax.transfer.weight_averaging import mixed

    mixtures = [mixed([start.variables, end.variables], (1 - part, part)) for part in parts]
    scored = scorer(end, len(parts))(mixtures)
    return {
        f"part-{part:g}": ({"part": part}, end._replace(variables=variables), scores)
        for part, (variables, scores) in zip(parts, scored, strict=True)
    }


def _soups(
    folder: Path, networks: Sequence[Any], scorer: Callable[..., Any], suite: str, score: str
) -> dict[str, Any]:
    from tinyjax.transfer.weight_averaging import greedy, mixed

    alike = defaultdict(list)
    for network in networks:
        about = network.about
        alike[f"{about['backbone'].replace('/', '-')}-{about['parameters']}"].append(network)
    held_out = {
        row["member"]: float(row[score])
        for row in read_rows(folder / "results.csv")
        if row["suite"] == suite
    }
    found = {}
    for kind, own in alike.items():
        if len(own) < 2:
            log.info(f"{kind}: a single member, nothing to average")
            continue
        evaluate = scorer(own[0], 1)

        def soup(kept, own=own, evaluate=evaluate):
            some = [own[i].variables for i in kept]
            ((variables, scores),) = evaluate([mixed(some, [1 / len(some)] * len(some))])
            return variables, scores

        kept = greedy([held_out[n.member.id] for n in own], lambda k: soup(k)[1][suite][score])
        for name, used in (("uniform", [*range(len(own))]), ("greedy", kept)):
            variables, scores = soup(used)
            members = " ".join(own[i].member.id for i in used)
            network = own[0]._replace(variables=variables)
            found[f"{name}-{kind}"] = ({"members": members}, network, scores)
    if not found:
        raise UserError(f"{folder}: no two members are networks of the same kind")
    return found


def _scorer(like, members: int, kind, training, suites, batches: int) -> Callable[..., Any]:
    """`evaluate([Variables] of so many) -> [(Variables, suite -> scores)]` with BatchNorm's moments
    estimated anew; like: a network of that architecture. Its programs are compiled once.
    """
    import jax

    from tinyjax import tasks
    from tinyjax.population import measurements, stack
    from tinyjax.population.devices import device_layout
    from tinyjax.population.input_pipeline import make_input_pipeline
    from tinyjax.population.member_batching import batch_members

    config, n = like.config, len(training.images)
    devices = device_layout(members, config.batch)
    joined = stack.stack_members([like] * members, kind, training, devices.axes)
    supply = make_input_pipeline(kind, training, config, config.seed, devices)
    hyper, part = devices.spread((joined.hyper, joined.data))

    def lifted(one, split=False):
        return devices.shard(batch_members(one, "vmap" if members > 1 else "none"), split)

    estimate = measurements.batchnorm_estimator(joined, config.batch, lifted, devices.axes)
    predict = jax.jit(lifted(joined.task.predict, split=True))

    def evaluate(networks):
        variables = devices.spread(stack.stack_trees(networks))
        for step, data in zip(range(min(batches, n // config.batch)), supply(), strict=False):
            variables = estimate((variables, hyper, part), data, step)
        scores: list[dict[str, Any]] = [{} for _ in networks]
        for name, split in suites.items():
            found = tasks.predict_all(predict, variables, split.images, devices.rows, members)
            for own, values in zip(scores, joined.task.score(found, split), strict=True):
                own[name] = values
        whole = jax.device_get(devices.gathered(variables))
        return [*zip(stack.unstack(whole, members), scores, strict=True)]

    return evaluate


# ---- the command line, and what is said


def _parts(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 <= part <= 1 for part in found):
        raise UserError(f"--parts {text}: give numbers from 0 to 1, such as 0,0.5,1")
    return found


def _start_of(folder: Path, given: Path | None) -> Path:
    if given:
        return given
    phases = sorted(folder.glob("phase[0-9]*"), key=lambda place: int(place.name[5:]))
    if len(phases) < 2:
        raise UserError(f"--start: {folder} is no run in phases; give the run that it started from")
    return phases[-2]


def _tell(rows: Sequence[dict[str, Any]], kind, folder: Path) -> None:
    from tinyjax.reporting import transfer_figures

    suites = list(dict.fromkeys(row["suite"] for row in rows))
    lines = [f"{'':<28}" + "".join(f"{name:>12}" for name in suites)]
    for name in dict.fromkeys(row["average"] for row in rows):
        own = [row[kind.SCORE] for row in rows if row["average"] == name]
        lines.append(f"{name:<28}" + "".join(f"{value:>12.3f}" for value in own))
    title = kind.SCORES[kind.SCORE]
    log.info("\n".join([f"{title} of averaged weights", *lines]))
    if "part" in rows[0]:
        transfer_figures.draw_between(rows, kind.SCORE, title, folder / "figures" / "averages.png")
    log.info(f"scores and weights are in {folder / 'averages'}")


if __name__ == "__main__":
    sys.exit(exit_code(main))
