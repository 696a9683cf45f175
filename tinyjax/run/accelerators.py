"""Cloud TPU slices by name: topology, number of machines and properties of a chip."""

from collections.abc import Iterator
from typing import NamedTuple

from tinyjax.errors import UserError, suggest

GIB = 2**30


class Chip(NamedTuple):
    """A chip, one jax device. Source: the vendor's pages on each generation."""

    name: str  # of the generation, in libtpu
    memory: int  # bytes
    flops: float  # peak, bfloat16, per second
    bandwidth: float  # peak, of the chip's memory, bytes per second
    runtime: str  # software version to pin for TPU virtual machines
    machine: str  # machine type in Google Kubernetes Engine, for hosts of four chips
    node: str  # accelerator label in Google Kubernetes Engine


class Slice(NamedTuple):
    """Connected chips that are rented together."""

    name: str
    chip: Chip
    topology: str  # "4x4"
    chips: int
    hosts: int  # machines, one process each; in Kubernetes at most `CHIPS_PER_HOST` chips each


# Forum threads name two runtimes for v5e; this one is the vendor's default.
V4 = Chip(
    "v4", 32 * GIB, 275e12, 1228e9, "tpu-ubuntu2204-base", "ct4p-hightpu-4t", "tpu-v4-podslice"
)
V5E = Chip(
    "v5e",
    16 * GIB,
    197e12,
    819e9,
    "v2-alpha-tpuv5-lite",
    "ct5lp-hightpu-4t",
    "tpu-v5-lite-podslice",
)
V5P = Chip("v5p", 95 * GIB, 459e12, 2765e9, "v2-alpha-tpuv5", "ct5p-hightpu-4t", "tpu-v5p-slice")
V6E = Chip("v6e", 32 * GIB, 918e12, 1640e9, "v2-alpha-tpuv6e", "ct6e-standard-4t", "tpu-v6e-slice")

TOPOLOGIES_2D = {
    1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16",
}  # fmt: skip
TOPOLOGIES_3D = {
    4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8",
    512: "8x8x8", 1024: "8x8x16",
}  # fmt: skip
CHIPS_PER_HOST = 4  # in a slice of several machines
MAX_SINGLE_HOST_CHIPS = 8  # 2D slices of up to this many chips are a single machine


def _slices() -> Iterator[Slice]:
    # Names of v4 and v5p count cores, two per chip; the other names count chips.
    generations = (
        ("v4", V4, TOPOLOGIES_3D, 2),
        ("v5litepod", V5E, TOPOLOGIES_2D, 1),
        ("v5p", V5P, TOPOLOGIES_3D, 2),
        ("v6e", V6E, TOPOLOGIES_2D, 1),
    )
    for prefix, chip, topologies, units_per_chip in generations:
        for chips, topology in topologies.items():
            single_host = topologies is TOPOLOGIES_2D and chips <= MAX_SINGLE_HOST_CHIPS
            hosts = 1 if single_host else chips // CHIPS_PER_HOST
            yield Slice(f"{prefix}-{chips * units_per_chip}", chip, topology, chips, hosts)


SLICES: dict[str, Slice] = {slice_.name: slice_ for slice_ in _slices()}


def find_slice(name: str) -> Slice:
    """Return the slice with this name. Raises UserError for an unknown name."""
    if name not in SLICES:
        raise UserError(f"accelerator {name!r}: {suggest(name, SLICES)}")
    return SLICES[name]
