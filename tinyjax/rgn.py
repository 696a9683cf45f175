"""Relative gradient norm of a finished run, or of all members of a sweep: how large the gradient of
the training loss is against the weights that it would move, in each layer of the backbone.

    python -m tinyjax.rgn --workdir runs/fine/phase1 [--freeze stage<=1 --freeze batchnorm]

To be measured where it is of use: on a detector whose backbone stood still so far (decoder
probing), before the backbone moves. --freeze names what will stay frozen then and drops out. Writes
<workdir>/rgn.csv, a row for each layer, figures/rgn.png, and the mean over layers as column "rgn"
of results.csv. docs/transfer.md says what is what.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tinyjax import config as configs
from tinyjax.errors import UserError, exit_code
from tinyjax.run import progress
from tinyjax.run.csv_files import read_rows, write_rows
from tinyjax.run.logs import log, start_log

FLAGS: dict[str, dict[str, Any]] = {
    "--weights": {
        "choices": ("last", "best"),
        "default": "last",
        "help": "averaged weights: the last, or the best",
    },
    "--freeze": {
        "action": "append",
        "default": [],
        "metavar": "PRESET",
        "help": "what drops out, as in config.freeze; may be given several times",
    },
    "--batches": {
        "type": int,
        "default": 100,
        "metavar": "N",
        "help": "to average over, at most an epoch; default 100",
    },
}


def main(argv: list[str] | None = None) -> int:
    options = configs.parse_options("rgn", __doc__, argv, FLAGS, needs=("workdir",))
    folder = Path(options.workdir)
    if options.batches < 1:
        raise UserError(f"--batches {options.batches}: give 1 or more")

    from tinyjax import tasks
    from tinyjax.population import plan, stack
    from tinyjax.reporting import transfer_figures
    from tinyjax.run import runtime
    from tinyjax.transfer import rgn

    populations = plan.populations_of_run(folder)
    runtime.tune_allocator()
    runtime.enable_compile_cache()
    start_log()
    config = configs.from_run(json.loads((folder / "config.json").read_text()))
    kind = tasks.module(config.task)
    training = kind.load(config.data, config.data.train)
    changes = {"freeze": tuple(options.freeze)}
    rows, numbers, sizes = [], {}, {}
    for ids in progress.progress_bar(populations, unit="population"):
        networks = stack.load_trained(folder, ids, options.weights, changes, kind, training)
        measured = _measured(networks, kind, training, options.batches)
        for network, (kernels, tensors) in zip(networks, measured, strict=True):
            layers, name = rgn.layers(kernels, tensors), network.member.id
            numbers[name], sizes[name] = rgn.of_backbone(layers), network.about["parameters"]
            about = {"member": name, "backbone": network.about["backbone"]}
            rows += [{**about, **layer} for layer in layers]
    write_rows(folder / "rgn.csv", rows, rows[0])
    _add_to_results(folder / "results.csv", numbers)
    transfer_figures.draw_rgn(rows, numbers, sizes, folder / "figures" / "rgn.png")
    low, high = min(numbers.values()), max(numbers.values())
    said = (
        f"{low:.4g}" if len(numbers) == 1 else f"of {len(numbers)} members {low:.4g} to {high:.4g}"
    )
    log.info(
        f"{folder}: relative gradient norm {said}\n"
        f"written to {folder / 'rgn.csv'}, {folder / 'figures' / 'rgn.png'} and results.csv"
    )
    return 0


def measured(folder: Path) -> bool:
    """Whether a finished run or sweep has its numbers already."""
    return "rgn" in read_rows(folder / "results.csv")[0]


def _measured(networks, kind, training, batches) -> Iterator[tuple[dict, dict]]:
    """Of each network the kernels' ratios, those of its own and not of the padding, and the
    tensors'.
    """
    from tinyjax.population import measurements, stack
    from tinyjax.population.devices import device_layout
    from tinyjax.population.input_pipeline import make_input_pipeline
    from tinyjax.population.member_batching import batch_members
    from tinyjax.population.pad import unpad
    from tinyjax.transfer import rgn

    config, n = networks[0].config, len(training.images)
    devices = device_layout(len(networks), config.batch)
    joined = stack.stack_members(networks, kind, training)
    if not any(rgn.counted(path) for path in joined.moving.paths):
        raise UserError(f"--freeze {' '.join(config.freeze)}: no layer of the backbone is left")
    own = devices.spread((joined.variables, joined.hyper, joined.data))
    how = "vmap" if len(networks) > 1 else "none"
    found = measurements.mean_over_batches(
        rgn.measure, rgn.counted, joined, own,
        make_input_pipeline(kind, training, config, config.seed, devices), config.batch,
        min(batches, n // config.batch), lambda one: devices.shard(batch_members(one, how)),
    )  # fmt: skip
    for network, ratios in zip(networks, stack.unstack(found, len(networks)), strict=False):
        shapes = {
            path: (1, 1, *leaf.shape[2:])
            for path, leaf in network.variables.params.items()
            if path in ratios["kernels"]
        }
        yield unpad(ratios["kernels"], shapes), {path: ratios["tensors"][path] for path in shapes}


def _add_to_results(file: Path, numbers: dict[str, float]) -> None:
    """A column "rgn"; of a run in phases the last one has these weights."""
    rows = read_rows(file)
    last = rows[-1].get("phase")
    for row in rows:
        row["rgn"] = repr(numbers[row["member"]]) if row.get("phase") == last else ""
    write_rows(file, rows, rows[0])


if __name__ == "__main__":
    sys.exit(exit_code(main))
