"""Members that predict together: of a run or a sweep, or the network of an exported file."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tinyjax import config as configs
from tinyjax.errors import UserError
from tinyjax.exporting.network_files import open_network
from tinyjax.population.networks import load_stored
from tinyjax.population.plan import populations_of_run
from tinyjax.population.stack import make_predictor
from tinyjax.tasks import get_task
from tinyjax.training.validation import check_config

MAX_GROUP = 32  # members that predict together; boxes of hundreds would fill the memory


class Group(NamedTuple):
    """Members that predict together."""

    ids: list[str]
    config: Any
    metadata: dict[str, Any]  # of the first member, see `networks.weights_metadata`
    trained_on: list[dict[str, Any]]  # identity records of all members
    predict: Callable[..., list[dict[str, Any]]]  # (inputs) -> predictions of each member
    any_size: bool = True  # whether images may differ in size from those of the training set


def load_run(
    folder: Path, weights: str, overrides: Sequence[str], suites: str | None
) -> list[Group]:
    """The members of a run or a sweep.

    weights: "last" or "best". overrides: changes of their configs. suites: see `with_suites`.
    Raises UserError as `populations_of_run`, `load_stored` and `with_suites` do.
    """
    groups = []
    for population in populations_of_run(folder):
        for start in range(0, len(population), MAX_GROUP):
            ids = [*population[start : start + MAX_GROUP]]
            networks = load_stored(folder, ids, weights, overrides)
            config, metadata = networks[0].config, networks[0].metadata
            predict = make_predictor(networks, get_task(config.task))
            config = with_suites(config, suites) if suites else config
            trained_on = [r for n in networks for r in n.metadata.get("trained_on", ())]
            groups.append(Group(ids, config, metadata, trained_on, predict))
    return groups


def load_file(file: Path, overrides: Sequence[str], suites: str | None) -> tuple[Group, Path]:
    """The network of an exported file as a group, and the path of its scores, without a suffix.

    overrides, suites: as in `load_run`. Raises UserError as `open_network` and `with_suites` do.
    """
    network = open_network(file, overrides)
    config = with_suites(network.config, suites) if suites else network.config
    name, metadata = network.path.stem, network.metadata
    group = Group([name], config, metadata, [*metadata["trained_on"]], network.predict, False)
    # mine.onnx and mine.tflite share the folder mine-evaluations.
    suffix = network.path.suffix.removeprefix(".")
    return group, network.path.with_name(f"{name}-evaluations") / suffix


def with_suites(config: Any, spec: str) -> Any:
    """The config with suites, slices and `monitor` of the config file `spec`."""
    other, merged = configs.load(spec), config.to_dict()
    run_data, other_data = merged["data"], other.data.to_dict()
    common = {"format": other_data["format"], **other_data["common"]}
    common.pop("classes", None)  # suites have the classes of the training set
    for name, arguments in other_data["suites"].items():
        if not isinstance(arguments, Mapping):
            raise UserError(f"--suites {spec}: data.suites.{name} = {arguments!r}: give a dict")
    merged["data"] = {
        **run_data,
        "common": {},
        "train": {**run_data["common"], **run_data["train"]},
        "suites": {name: {**common, **args} for name, args in other_data["suites"].items()},
        "slices": other_data.get("slices", {}),
    }
    config = configs.from_json(json.dumps({**merged, "monitor": other.monitor}))
    check_config(config)
    return config
