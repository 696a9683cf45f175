"""Members over devices and, where members are fewer than these, the rows of a batch as well. No
other file names the axes of a mesh.

Nothing crosses "member". Over "data" a shard computes its part of a sum: of the loss, whose
normalizers and BatchNorm's moments are those of the whole batch, and of the gradient, which the
step adds up once. So a member's training does not depend on the number of its shards.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from tinyjax.data.sampling import Streamed, rows_of

MEMBER, DATA = "member", "data"


class DeviceLayout(NamedTuple):
    """Where the members of a population are. On a single device nothing here does anything."""

    mesh: Mesh  # [member, data]
    members: int  # of one alone arrays have no axis for it

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that a member's batch is spread over, for `jax.lax.psum`: none, or "data"."""
        return (DATA,) if self.mesh.shape[DATA] > 1 else ()

    @property
    def own(self) -> int:
        """Members of a device."""
        return -(-self.members // self.mesh.shape[MEMBER])

    def at_once(self, how: str, chunk: int) -> int:
        """Members that a device computes at the same time, if they are lifted so, see `lift`."""
        return {"vmap": self.own, "chunks": min(chunk, self.own)}.get(how, 1)

    @property
    def rows(self) -> int:
        """Images to predict on at a time: on each device 32 over all its members, at least 2."""
        return self.mesh.shape[DATA] * max(2, 32 // self.own)

    def shard(self, f: Callable[[Any, Any], Any], split: bool = False) -> Callable[[Any, Any], Any]:
        """`f(own, shared)`, on each device for the members that it has, and of a `Streamed` batch
        for its rows, if `batches` placed it.

        split: `shared` are rows of a batch, and the result has one row for each.
        """
        if self.mesh.size == 1:
            return f
        member, rows = (MEMBER,) if self.members > 1 else (), (DATA,) if split else ()

        def spec(leaf):
            return P(*self.axes) if isinstance(leaf, Streamed) else P(*rows)

        def sharded(own, shared):
            given = jax.tree.map(spec, shared, is_leaf=lambda leaf: isinstance(leaf, Streamed))
            # The check would ask of each custom gradient to add up over "data"; the step does once.
            return jax.shard_map(
                f, mesh=self.mesh, in_specs=(P(*member), given), out_specs=P(*member, *rows),
                check_vma=False,
            )(own, shared)  # fmt: skip

        return sharded

    def spread(self, own: Any) -> Any:
        """Arrays of members [M, ..] on their devices. Where these do not divide them there are idle
        members more, copies of the last one.
        """
        if self.mesh.size == 1:
            return jax.device_put(own)
        if self.members == 1:
            return self.everywhere(own)

        def filled(leaf):
            idle = -len(leaf) % self.mesh.shape[MEMBER]
            return np.concatenate([leaf, np.repeat(np.asarray(leaf)[-1:], idle, 0)])

        return self._placed(jax.tree.map(filled, own), P(MEMBER))

    def everywhere(self, shared: Any) -> Any:
        """What all members read, on every device."""
        if self.mesh.size == 1:
            return shared
        return self._placed(shared, P())

    def batches(self, batch: int) -> tuple[Sequence[int], Callable[[Any], Any]]:
        """The rows of a batch that devices of this process read, and what places them there: arrays
        [rows, ..] as [batch, ..], each shard's own together, see `stream.own_rows`.
        """
        if not self.axes:
            return range(batch), self.everywhere
        sharding, shards = NamedSharding(self.mesh, P(DATA)), self.mesh.shape[DATA]
        order = np.concatenate([rows_of(i, shards, batch) for i in range(shards)])
        where: Any = sharding.addressable_devices_indices_map((batch,)).values()
        firsts = sorted({at[0].start or 0 for at in where})
        own = batch // shards

        def placed(leaf):
            def part(at):
                first = firsts.index(at[0].start or 0) * own
                return leaf[first : first + own]

            return jax.make_array_from_callback((batch, *leaf.shape[1:]), sharding, part)

        rows = np.concatenate([order[first : first + own] for first in firsts])
        return rows.tolist(), lambda tree: jax.tree.map(placed, tree)

    def by_rows(self, predict: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """`predict(own, rows)`, a program whose rows are spread over devices (`shard`, split), from
        rows on the host to results on the host.
        """
        if self.mesh.size == 1:
            return predict
        return lambda own, rows: self.gathered(predict(own, self._placed(rows, P(DATA))))

    def gathered(self, own: Any) -> Any:
        """What was spread, on the host of every process and without idle members."""
        take = slice(self.members) if self.members > 1 else ...
        return jax.tree.map(lambda leaf: leaf[take], fetch(own))

    def described(self, own: Any) -> Any:
        """What `spread` would place, as shapes."""
        sharding = NamedSharding(self.mesh, P(MEMBER) if self.members > 1 else P())

        def shape(leaf):
            first = [len(leaf) + -len(leaf) % self.mesh.shape[MEMBER]] if self.members > 1 else []
            full = (*first, *leaf.shape[len(first) :])
            return jax.ShapeDtypeStruct(full, leaf.dtype, sharding=sharding)

        return jax.tree.map(shape, own)

    def described_rows(self, shared: Any, rows: bool = False) -> Any:
        """What `everywhere` would place, or of a batch what `batches` would, as shapes."""
        sharding = NamedSharding(self.mesh, P(*self.axes) if rows else P())
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shared
        )

    def _placed(self, tree: Any, spec: P) -> Any:
        """Arrays that every process has whole, on its devices what they need of them."""
        sharding = NamedSharding(self.mesh, spec)
        if jax.process_count() == 1:
            return jax.device_put(tree, sharding)

        def placed(leaf):
            leaf = np.asarray(leaf)
            return jax.make_array_from_callback(leaf.shape, sharding, lambda at: leaf[at])

        return jax.tree.map(placed, tree)


def fetch(tree: Any) -> Any:
    """Arrays whole, on the host of every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)

    def whole(leaf):
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return np.asarray(leaf)
        if leaf.is_fully_replicated:
            return np.asarray(leaf.addressable_data(0))
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(whole, tree)


def device_layout(members: int, batch: int, devices: Sequence[Any] | None = None) -> DeviceLayout:
    """All devices, or these, so that the busiest has least to do; of equals that with the fewest
    shards of a batch, which wait for each other and are therefore neighbors.

    batch: rows of each member's; a shard has an even number of them, see `stream.own_rows`.
    """
    devices = jax.devices() if devices is None else devices
    many = len(devices)
    shards = [n for n in range(1, many + 1) if many % n == 0 and (n == 1 or batch % (2 * n) == 0)]
    best = min(shards, key=lambda n: (-(-members // (many // n)) / n, n))
    # With explicit axes a vmapped convolution fails; with automatic ones alone, outside shard_map,
    # every device would compute all members (https://github.com/openxla/xla/issues/47945).
    auto = (AxisType.Auto, AxisType.Auto)
    # Not `make_mesh`: on a pod it refuses most shapes that do not follow the wiring.
    grid = np.array(devices).reshape(-1, best)
    return DeviceLayout(Mesh(grid, (MEMBER, DATA), axis_types=auto), members)
