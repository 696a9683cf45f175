"""Cloud TPU slices by the names that one asks for them by: how they are wired, how many machines
they are, and what a chip can do.
"""

from typing import NamedTuple

from tinyjax.errors import UserError, suggest

GIB = 2**30


class Chip(NamedTuple):
    """Of one device, as jax counts them. Source: the vendor's pages on each generation."""

    name: str  # libtpu's of the generation
    memory: int  # bytes
    flops: float  # bfloat16, a second, at best
    bandwidth: float  # of its memory, bytes a second, at best
    runtime: str  # the software version to pin for TPU virtual machines
    machine: str  # of Google Kubernetes Engine, for hosts of four chips
    node: str  # the same service's label of the accelerator


class Slice(NamedTuple):
    """Chips that are wired to each other."""

    name: str
    chip: Chip
    topology: str  # "4x4"
    chips: int
    hosts: int  # machines, each a process; Kubernetes has machines of at most `PER_HOST` chips


# v5e's runtime has two names in public threads, of which this one is the vendor's own default.
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

FLAT = {
    1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16",
}  # fmt: skip
DEEP = {
    4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8",
    512: "8x8x8", 1024: "8x8x16",
}  # fmt: skip
PER_HOST = 4  # chips of a machine that is part of a larger slice
ALONE = 8  # chips of a flat slice that is a single machine, at most


def _slices():
    # Names count chips, but those of v4 and v5p count cores, of which a chip has two.
    kinds = (("v4", V4, DEEP, 2), ("v5litepod", V5E, FLAT, 1), ("v5p", V5P, DEEP, 2))
    for prefix, chip, topologies, cores in (*kinds, ("v6e", V6E, FLAT, 1)):
        for chips, topology in topologies.items():
            name = f"{prefix}-{chips * cores}"
            alone = topologies is FLAT and chips <= ALONE
            yield name, Slice(name, chip, topology, chips, 1 if alone else chips // PER_HOST)


SLICES: dict[str, Slice] = dict(_slices())


def named(name: str) -> Slice:
    """The slice of that name. Raises UserError."""
    if name not in SLICES:
        raise UserError(f"accelerator {name!r}: {suggest(name, SLICES)}")
    return SLICES[name]
