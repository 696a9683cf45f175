"""Average the weights of finished runs, and score the averages on all suites.

    python -m tinyjax.average --workdir runs/fine --start runs/probed [--fractions 0,0.5,1]
    python -m tinyjax.average --workdir runs/sweep
    python -m tinyjax.average --workdir runs/pretrained --path-blocks 1

A single run's weights are averaged with its starting weights (WiSE-FT), those of the run --start;
in a run with phases, the default is the second to last phase. A sweep's members that have the same
model fields and parameter count are averaged into a uniform and a greedy soup; they should also
have the same starting weights. The greedy soup selects members by the score on the suite
config.monitor. With --path-blocks N, the two copies of the blocks after block N are averaged within
each network with two paths, and only blocks 1 to N stay double (TOPLight's uniform soup, with N =
1). Runs with model.path_blocks = N may start from the result, init =
"<workdir>/averages/paths-1.safetensors".

BatchNorm's running statistics are re-estimated. The command writes results.csv and the weights
(.safetensors and .json) to <workdir>/averages/, and for fractions also
<workdir>/figures/averages.png.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tinyjax import config as configs
from tinyjax.config.paths import parse_path
from tinyjax.errors import UserError, run_command
from tinyjax.run.csv_files import read_rows, write_rows
from tinyjax.run.files import read_json
from tinyjax.run.logs import log, start_log
from tinyjax.run.run_folder import AVERAGES
from tinyjax.run.text import text_table
from tinyjax.run.weights import write_weights

FLAGS: dict[str, dict[str, Any]] = {
    "--start": {
        "metavar": "DIR",
        "type": parse_path,
        "help": "run folder of the weights that a single run started from",
    },
    "--fractions": {
        "metavar": "A,B,..",
        "default": "0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1",
        "help": "fraction of the final weights in each average; the rest is the starting weights "
        "(default: steps of 0.1)",
    },
    "--path-blocks": {
        "type": int,
        "metavar": "N",
        "help": "average the two copies of the blocks after block N; 0: of all blocks",
    },
    "--batches": {
        "type": int,
        "default": 100,
        "metavar": "N",
        "help": "training batches for BatchNorm's statistics, at most an epoch (default 100)",
    },
}


class Average(NamedTuple):
    """Averaged weights."""

    columns: dict[str, Any]  # of results.csv, which describe what was averaged
    network: Any  # see `population.networks.Network`
    scores: dict[str, dict[str, float]]  # suite -> metric -> value


def main(argv: list[str] | None = None) -> int:
    options = configs.parse_options("average", __doc__, argv, FLAGS, required=("workdir",))
    folder, fractions = options.workdir, _parse_fractions(options.fractions)
    if options.batches < 1:
        raise UserError(f"--batches {options.batches}: give 1 or more")

    from tinyjax.population.networks import load_trained, weights_metadata
    from tinyjax.population.plan import populations_of_run
    from tinyjax.run import runtime
    from tinyjax.tasks import get_task
    from tinyjax.tasks.suites import load_splits

    ids = [id for population in populations_of_run(folder) for id in population]
    is_sweep = (folder / "plan.json").exists()
    if options.path_blocks is not None and options.start:
        raise UserError("--path-blocks: averages within one network; leave out --start")
    if is_sweep and options.start:
        raise UserError(
            f"--start: {folder} is a sweep, whose members are averaged; leave out --start"
        )
    runtime.tune_allocator()
    start_log()
    runtime.enable_compile_cache()
    config = configs.from_run(read_json(folder / "config.json"))
    task = get_task(config.task)
    training, suites = load_splits(config.task, config.data)

    def load_networks(path: Path, ids: Sequence[str] = ids, **changes: Any):
        return load_trained(path, ids, "last", changes, task, training)

    def make_scorer(network: Any, members: int):
        return _make_scorer(network, members, task, training, suites, options.batches)

    if options.path_blocks is not None:
        selected = _networks_with_two_paths(folder, ids, options.path_blocks)
        networks = load_networks(folder, [*selected], **{"model.path_blocks": options.path_blocks})
        averages = _average_paths(networks, selected, make_scorer)
    elif is_sweep:
        averages = _make_soups(
            folder, load_networks(folder), make_scorer, config.monitor, task.monitor
        )
    else:
        start_folder = _start_folder(folder, options.start)
        (start,), (end,) = load_networks(start_folder), load_networks(folder)
        _check_same_network(start, end, start_folder, folder)
        averages = _interpolate(start, end, fractions, make_scorer)
    rows = []
    for name, average in averages.items():
        details = {"average": average.columns, "scores": average.scores}
        metadata = weights_metadata(average.network, task, training, **details)
        write_weights(folder / AVERAGES / name, average.network.variables, metadata)
        columns = {"average": name, **average.columns}
        rows += [{**columns, "suite": s, **values} for s, values in average.scores.items()]
    write_rows(folder / AVERAGES / "results.csv", rows, rows[0])
    _report(rows, task, task.metrics(config)[task.monitor], folder)
    return 0


def is_done(folder: Path) -> bool:
    """Whether the averages of a finished run or sweep exist."""
    return (folder / AVERAGES / "results.csv").exists()


# ---- averages, by name


def _interpolate(
    start: Any, end: Any, fractions: Sequence[float], make_scorer: Callable[..., Any]
) -> dict[str, Average]:
    from tinyjax.transfer.weight_averaging import weighted_sum

    mixtures = [weighted_sum([start.variables, end.variables], (1 - f, f)) for f in fractions]
    scored = make_scorer(end, len(fractions))(mixtures)
    return {
        f"fraction-{f:g}": Average({"fraction": f}, end._replace(variables=variables), scores)
        for f, (variables, scores) in zip(fractions, scored, strict=True)
    }


def _make_soups(
    folder: Path, networks: Sequence[Any], make_scorer: Callable[..., Any], suite: str, metric: str
) -> dict[str, Average]:
    from tinyjax.transfer.weight_averaging import greedy_soup, weighted_sum

    scores = {
        row["member"]: float(row[metric])
        for row in read_rows(folder / "results.csv")
        if row["suite"] == suite
    }
    soups = {}
    for group, members in _group_by_network(networks).items():
        if len(members) < 2:
            log.info(f"{group}: a single member, nothing to average")
            continue
        evaluate = make_scorer(members[0], 1)

        def score_soup(indices, members=members, evaluate=evaluate):
            variables = [members[i].variables for i in indices]
            fractions = [1 / len(variables)] * len(variables)
            ((averaged, scores),) = evaluate([weighted_sum(variables, fractions)])
            return averaged, scores

        member_scores = [scores[network.member.id] for network in members]
        selected = greedy_soup(member_scores, lambda i: score_soup(i)[1][suite][metric])
        for name, indices in (("uniform", [*range(len(members))]), ("greedy", selected)):
            averaged, soup_scores = score_soup(indices)
            ids = " ".join(members[i].member.id for i in indices)
            network = members[0]._replace(variables=averaged)
            soups[f"{name}-{group}"] = Average({"members": ids}, network, soup_scores)
    if not soups:
        raise UserError(f"{folder}: no two members have the same model fields and parameter count")
    return soups


def _group_by_network(networks: Sequence[Any]) -> dict[str, list[Any]]:
    """Name -> the networks that differ only in their weights."""
    groups: dict[str, dict[str, list[Any]]] = defaultdict(dict)
    for network in networks:
        backbone, parameters = (network.metadata[k] for k in ("backbone", "parameters"))
        name = f"{backbone.replace('/', '-')}-{parameters}"
        groups[name].setdefault(repr(_model_fields(network)), []).append(network)
    return {
        f"{name}-{number}" if number > 1 else name: members
        for name, same_size in groups.items()
        for number, members in enumerate(same_size.values(), start=1)
    }


def _check_same_network(start: Any, end: Any, start_folder: Path, folder: Path) -> None:
    """Raise UserError if two networks differ in more than their weights."""
    from tinyjax.transfer.weight_averaging import check_same_arrays

    start_fields, end_fields = _model_fields(start), _model_fields(end)
    if differing := [
        name
        for name in start_fields
        if start_fields[name] != end_fields.get(name, start_fields[name])
    ]:
        start_text, end_text = (
            ", ".join(f"model.{name} = {fields[name]!r}" for name in differing)
            for fields in (start_fields, end_fields)
        )
        raise UserError(
            f"--start {start_folder} has {start_text}; {folder} has {end_text}; give the run that "
            "it started from"
        )
    try:
        check_same_arrays(start.variables, end.variables)
    except UserError as error:
        raise UserError(
            f"--start {start_folder}: {error}; give the run that {folder} started from"
        ) from error


def _model_fields(network: Any) -> dict[str, Any]:
    """The fields that make a network, some of them without effect on its arrays (anchors)."""
    fields = network.config.model.to_dict()
    return {name: fields[name] for name in sorted(fields.keys() - {"batchnorm_eps", "dtype"})}


def _networks_with_two_paths(folder: Path, ids: Sequence[str], blocks: int) -> dict[str, Any]:
    """Member -> architecture, of those that have two copies of a block after block `blocks`."""
    from tinyjax.population.networks import load_stored

    architectures = {n.member.id: n.architecture for n in load_stored(folder, ids, "last")}
    selected = {id: arch for id, arch in architectures.items() if 0 <= blocks < arch.path_blocks}
    if not selected:
        doubled = max(arch.path_blocks for arch in architectures.values())
        advice = f"give less than {doubled}" if doubled else "its networks have a single path"
        raise UserError(
            f"--path-blocks {blocks}: {folder} has two copies of {doubled} blocks; {advice}"
        )
    for id in architectures.keys() - selected.keys():
        log.info(f"{id}: no two copies of a block after block {blocks}, nothing to average")
    return selected


def _average_paths(
    networks: Sequence[Any], architectures: dict[str, Any], make_scorer: Callable[..., Any]
) -> dict[str, Average]:
    """networks: with the config and architecture of the average, and the weights of two paths.

    architectures: member -> architecture of its weights.
    """
    from tinyjax.transfer.weight_averaging import average_paths

    averages = {}
    for network in networks:
        id, path_blocks = network.member.id, network.architecture.path_blocks
        averaged = average_paths(network.variables, architectures[id], path_blocks)
        network = network._replace(variables=averaged)
        ((variables, scores),) = make_scorer(network, 1)([averaged])
        name = f"paths-{path_blocks}" + (f"-{id}" if len(networks) > 1 else "")
        columns = {"members": id, "path_blocks": path_blocks}
        averages[name] = Average(columns, network._replace(variables=variables), scores)
    return averages


def _make_scorer(
    network: Any, members: int, task: Any, training: Any, suites: Any, batches: int
) -> Callable[..., Any]:
    """A function [Variables] -> [(Variables, suite -> scores)], called with `members` networks.

    It re-estimates BatchNorm's running statistics, then scores the networks. Its programs are
    compiled once. network: any network with their architecture.
    """
    import jax

    from tinyjax.population.devices import device_layout
    from tinyjax.population.input_pipeline import make_input_pipeline
    from tinyjax.population.measurements import batchnorm_estimator
    from tinyjax.population.prediction import predict_and_score
    from tinyjax.population.program import over_members
    from tinyjax.population.stack import stack_members, stack_trees, unstack

    config, size = network.config, len(training.names)
    layout = device_layout(members, config.batch)
    population = stack_members([network] * members, task, training, layout.axes)
    pipeline = make_input_pipeline(task, training, config, config.seed, layout)
    hyper, subset = layout.place((population.hyper, population.subset))
    batched = over_members(layout, "vmap" if members > 1 else "none", 0)
    estimate = batchnorm_estimator(config, task, population, batched, layout.axes)
    predict = layout.from_host_rows(jax.jit(batched(population.model.predict, split_rows=True)))

    def evaluate(networks):
        variables = layout.place(stack_trees(networks))
        steps = range(min(batches, size // config.batch))
        for step, data in zip(steps, pipeline(), strict=False):
            variables = estimate((variables, hyper, subset), data, step)
        scores: list[dict[str, Any]] = [{} for _ in networks]
        scored = predict_and_score(
            predict, variables, suites, task, config, layout.predict_batch, members
        )
        for name, _, suite_scores in scored:
            for member_scores, values in zip(scores, suite_scores, strict=True):
                member_scores[name] = values
        averaged = unstack(layout.to_host(variables), members)
        return [*zip(averaged, scores, strict=True)]

    return evaluate


# ---- command line and log


def _parse_fractions(text: str) -> list[float]:
    try:
        fractions = [float(item) for item in text.split(",")]
    except ValueError:
        fractions = []
    if not fractions or not all(0 <= fraction <= 1 for fraction in fractions):
        raise UserError(f"--fractions {text}: give numbers from 0 to 1, such as 0,0.5,1")
    return fractions


def _start_folder(folder: Path, start: Path | None) -> Path:
    if start:
        return start
    phases = sorted(folder.glob("phase[0-9]*"), key=lambda path: int(path.name[5:]))
    if len(phases) < 2:
        raise UserError(
            f"--start: {folder} is not a run in phases; give the run that it started from, or, to "
            "average two paths, --path-blocks"
        )
    return phases[-2]


def _report(rows: Sequence[dict[str, Any]], task: Any, title: str, folder: Path) -> None:
    from tinyjax.reporting import transfer_figures

    scores: dict[str, dict[str, Any]] = {}
    for row in rows:
        table_row = scores.setdefault(row["average"], {"average": row["average"]})
        table_row[row["suite"]] = row[task.monitor]
    log.info(f"{title} of averaged weights\n{text_table([*scores.values()])}")
    if "fraction" in rows[0]:
        figure = folder / "figures" / "averages.png"
        transfer_figures.draw_interpolation(rows, task.monitor, title, figure)
    log.info(f"scores and weights are in {folder / 'averages'}")


if __name__ == "__main__":
    sys.exit(run_command(main))
