"""Relative gradient norm of a finished run, or of all members of a sweep: the norm of the training
loss's gradient relative to that of the weights, in each layer of the backbone.

    python -m tinyjax.rgn --workdir runs/fine/phase1 [--freeze stage<=1 --freeze batchnorm]

Measure it on a detector that was trained with a frozen backbone (decoder probing), before the
backbone is trained. --freeze leaves out the parameters that will stay frozen. The command writes
<workdir>/rgn.csv, with a row for each layer, figures/rgn.png, and the mean over layers as column
"rgn" of results.csv. docs/transfer.md explains the numbers.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tinyjax import config as configs
from tinyjax.errors import UserError, run_command
from tinyjax.run.csv_files import read_rows, write_rows
from tinyjax.run.files import read_json
from tinyjax.run.logs import log, start_log
from tinyjax.run.progress import progress_bar
from tinyjax.run.text import value_range

FLAGS: dict[str, dict[str, Any]] = {
    "--weights": {
        "choices": ("last", "best"),
        "default": "last",
        "help": "averaged weights: the last ones, or the ones with the best score",
    },
    "--freeze": {
        "action": "append",
        "default": [],
        "metavar": "PRESET",
        "help": "parameters to leave out, as in config.freeze; may be given several times",
    },
    "--batches": {
        "type": int,
        "default": 100,
        "metavar": "N",
        "help": "training batches to average over, at most an epoch (default 100)",
    },
}


def main(argv: list[str] | None = None) -> int:
    options = configs.parse_options("rgn", __doc__, argv, FLAGS, required=("workdir",))
    folder = options.workdir
    if options.batches < 1:
        raise UserError(f"--batches {options.batches}: give 1 or more")

    from tinyjax.population.networks import load_trained
    from tinyjax.population.plan import populations_of_run
    from tinyjax.reporting import transfer_figures
    from tinyjax.run import runtime
    from tinyjax.tasks import get_task
    from tinyjax.transfer import rgn

    populations = populations_of_run(folder)
    runtime.tune_allocator()
    start_log()
    runtime.enable_compile_cache()
    config = configs.from_run(read_json(folder / "config.json"))
    task = get_task(config.task)
    training = task.load(config.data, config.data.train)
    changes = {"freeze": tuple(options.freeze)}
    rows: list[dict[str, Any]] = []
    means, parameters = {}, {}
    for ids in progress_bar(populations, unit="population"):
        networks = load_trained(folder, ids, options.weights, changes, task, training)
        measured = _measure(networks, task, training, options.batches)
        for network, (kernels, tensors) in zip(networks, measured, strict=True):
            layers, id = rgn.layer_rows(kernels, tensors), network.member.id
            means[id], parameters[id] = rgn.backbone_rgn(layers), network.metadata["parameters"]
            names = {"member": id, "backbone": network.metadata["backbone"]}
            rows += [{**names, **layer} for layer in layers]
    write_rows(folder / "rgn.csv", rows, rows[0])
    _add_to_results(folder / "results.csv", means)
    transfer_figures.draw_rgn(rows, means, parameters, folder / "figures" / "rgn.png")
    members = f" of {len(means)} members" if len(means) > 1 else ""
    log.info(
        f"{folder}: relative gradient norm{members} {value_range([*means.values()], '.4g')}\n"
        f"written to {folder / 'rgn.csv'}, {folder / 'figures' / 'rgn.png'} and results.csv"
    )
    return 0


def is_done(folder: Path) -> bool:
    """Whether the results of a finished run or sweep already have the column "rgn"."""
    return "rgn" in read_rows(folder / "results.csv")[0]


def _measure(
    networks: Sequence[Any], task: Any, training: Any, batches: int
) -> Iterator[tuple[dict, dict]]:
    """Yield for each network the ratios of its kernels, without padding, and of its tensors."""
    from tinyjax.population.devices import device_layout
    from tinyjax.population.input_pipeline import make_input_pipeline
    from tinyjax.population.measurements import mean_over_batches
    from tinyjax.population.pad import unpad
    from tinyjax.population.program import over_members
    from tinyjax.population.stack import stack_members, unstack
    from tinyjax.transfer import rgn

    config, count = networks[0].config, len(networks)
    layout = device_layout(count, config.batch)
    population = stack_members(networks, task, training)
    if not any(rgn.in_backbone_rgn(path) for path in population.trainable.paths):
        raise UserError(f"--freeze {' '.join(config.freeze)}: no layer of the backbone is left")
    ratios = mean_over_batches(
        rgn.measure, rgn.in_backbone_rgn, task, population,
        layout.place((population.variables, population.hyper, population.subset)),
        make_input_pipeline(task, training, config, config.seed, layout), config,
        min(batches, len(training.names) // config.batch),
        over_members(layout, "vmap" if count > 1 else "none", 0),
    )  # fmt: skip
    for network, member_ratios in zip(networks, unstack(ratios, count), strict=False):
        kernels, tensors = member_ratios["kernels"], member_ratios["tensors"]
        shapes = {
            path: (1, 1, *leaf.shape[2:])
            for path, leaf in network.variables.params.items()
            if path in kernels
        }
        yield unpad(kernels, shapes), {path: tensors[path] for path in shapes}


def _add_to_results(file: Path, means: dict[str, float]) -> None:
    """Add column "rgn"; in a run with phases, to the last phase, whose weights were measured."""
    rows = read_rows(file)
    last = rows[-1].get("phase")
    for row in rows:
        row["rgn"] = repr(means[row["member"]]) if row.get("phase") == last else ""
    write_rows(file, rows, rows[0])


if __name__ == "__main__":
    sys.exit(run_command(main))
