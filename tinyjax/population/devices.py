"""Members spread over devices and, where members are fewer than devices, the rows of their batches
too. No other file names the axes of a mesh.

Nothing crosses "member". Over "data" a shard computes its term of sums: of the loss, whose
normalizers and BatchNorm statistics are those of the whole batch, and of the gradient, which the
step sums once. A member's training therefore does not depend on the number of shards.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from tinyjax.data.sampling import StreamedBatch, shard_row_indices

MEMBER, DATA = "member", "data"
PREDICT_BATCH = 32  # samples per device and prediction call, over all its members


class DeviceLayout(NamedTuple):
    """How the members of a population are spread over devices; on one device, not at all."""

    mesh: Mesh  # [member, data]
    members: int  # arrays of a single member have no axis for it

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that a member's batch is spread over, for `jax.lax.psum`: () or ("data",)."""
        return (DATA,) if self.mesh.shape[DATA] > 1 else ()

    @property
    def members_per_device(self) -> int:
        return -(-self.members // self.mesh.shape[MEMBER])

    def concurrent_members(self, method: str, chunk_size: int) -> int:
        """Members that a device computes at the same time, see `batch_members`."""
        sizes = {
            "vmap": self.members_per_device,
            "chunks": min(chunk_size, self.members_per_device),
        }
        return sizes.get(method, 1)

    @property
    def predict_batch(self) -> int:
        """Samples per prediction call: `PREDICT_BATCH` a device over all members, at least 2."""
        return self.mesh.shape[DATA] * max(2, PREDICT_BATCH // self.members_per_device)

    def shard(
        self, function: Callable[[Any, Any], Any], split: bool = False
    ) -> Callable[[Any, Any], Any]:
        """`function(members, shared)`, run on each device for its members and, for a `Streamed`
        batch that `batch_placement` placed, for its rows.

        split: `shared` holds rows of a batch, and the result has one row for each.
        """
        if self.mesh.size == 1:
            return function
        member, rows = (MEMBER,) if self.members > 1 else (), (DATA,) if split else ()

        def spec(leaf):
            return P(*self.axes) if isinstance(leaf, StreamedBatch) else P(*rows)

        def sharded(members, shared):
            specs = jax.tree.map(spec, shared, is_leaf=lambda leaf: isinstance(leaf, StreamedBatch))
            # The check would require each custom gradient to sum over "data"; the step does so.
            return jax.shard_map(
                function, mesh=self.mesh, in_specs=(P(*member), specs),
                out_specs=P(*member, *rows), check_vma=False,
            )(members, shared)  # fmt: skip

        return sharded

    def place(self, members: Any) -> Any:
        """Arrays of members [M, ...], placed on their devices. If M does not fill the devices, idle
        copies of the last member do.
        """
        if self.mesh.size == 1:
            return jax.device_put(members)
        if self.members == 1:
            return self.replicate(members)

        def fill(leaf):
            idle = -len(leaf) % self.mesh.shape[MEMBER]
            return np.concatenate([leaf, np.repeat(np.asarray(leaf)[-1:], idle, 0)])

        return self._place(jax.tree.map(fill, members), P(MEMBER))

    def replicate(self, shared: Any) -> Any:
        """Arrays that all members read, placed on every device."""
        if self.mesh.size == 1:
            return shared
        return self._place(shared, P())

    def batch_placement(self, batch: int) -> tuple[Sequence[int], Callable[[Any], Any]]:
        """The rows of a batch that this process's devices read, and a function that places them:
        arrays [rows, ...] become [batch, ...], with the rows of each shard together, see
        `sampling.shard_rows`.
        """
        if not self.axes:
            return range(batch), self.replicate
        sharding, shards = NamedSharding(self.mesh, P(DATA)), self.mesh.shape[DATA]
        order = np.concatenate([shard_row_indices(i, shards, batch) for i in range(shards)])
        indices: Any = sharding.addressable_devices_indices_map((batch,)).values()
        starts = sorted({index[0].start or 0 for index in indices})
        rows_per_shard = batch // shards

        def place(leaf):
            def shard_rows(index):
                start = starts.index(index[0].start or 0) * rows_per_shard
                return leaf[start : start + rows_per_shard]

            return jax.make_array_from_callback((batch, *leaf.shape[1:]), sharding, shard_rows)

        rows = np.concatenate([order[start : start + rows_per_shard] for start in starts])
        return rows.tolist(), lambda tree: jax.tree.map(place, tree)

    def from_host_rows(self, predict: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """`predict(members, rows)` with `rows` and the result on the host, where `predict` spreads
        its rows over devices (`shard` with split).
        """
        if self.mesh.size == 1:
            return predict
        return lambda members, rows: self.to_host(predict(members, self._place(rows, P(DATA))))

    def to_host(self, members: Any) -> Any:
        """Arrays of members, on the host of every process and without idle members."""
        take = slice(self.members) if self.members > 1 else ...
        return jax.tree.map(lambda leaf: leaf[take], fetch(members))

    def abstract(self, members: Any) -> Any:
        """Shapes and shardings of the arrays that `place` would return."""
        sharding = NamedSharding(self.mesh, P(MEMBER) if self.members > 1 else P())

        def shape(leaf):
            filled = [len(leaf) + -len(leaf) % self.mesh.shape[MEMBER]] if self.members > 1 else []
            return jax.ShapeDtypeStruct(
                (*filled, *leaf.shape[len(filled) :]), leaf.dtype, sharding=sharding
            )

        return jax.tree.map(shape, members)

    def abstract_shared(self, shared: Any, rows: bool = False) -> Any:
        """Shapes and shardings of the arrays that `replicate` or, for the rows of a batch,
        `batch_placement` would place.
        """
        sharding = NamedSharding(self.mesh, P(*self.axes) if rows else P())
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shared
        )

    def _place(self, tree: Any, spec: P) -> Any:
        """Arrays that every process holds whole; each device gets its shard."""
        sharding = NamedSharding(self.mesh, spec)
        if jax.process_count() == 1:
            return jax.device_put(tree, sharding)

        def place(leaf):
            leaf = np.asarray(leaf)
            return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

        return jax.tree.map(place, tree)


def fetch(tree: Any) -> Any:
    """Whole arrays, on the host of every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)

    def fetch_leaf(leaf):
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return np.asarray(leaf)
        if leaf.is_fully_replicated:
            return np.asarray(leaf.addressable_data(0))
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(fetch_leaf, tree)


def device_layout(members: int, batch: int, devices: Sequence[Any] | None = None) -> DeviceLayout:
    """The layout on `devices`, None: all, that gives the busiest device the least work.

    Among equal layouts, the one with the fewest shards of a batch is chosen. Shards of a batch wait
    for each other and are therefore neighbors. batch: rows of each member's batch; a shard has an
    even number of them, see `sampling.shard_rows`.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    shards = [n for n in range(1, count + 1) if count % n == 0 and (n == 1 or batch % (2 * n) == 0)]
    best = min(shards, key=lambda n: (-(-members // (count // n)) / n, n))
    # With explicit axes a vmapped convolution fails; with automatic ones alone, outside shard_map,
    # every device would compute all members (https://github.com/openxla/xla/issues/47945).
    auto = (AxisType.Auto, AxisType.Auto)
    # Not `make_mesh`: on a pod it rejects most shapes that do not follow the wiring.
    grid = np.array(devices).reshape(-1, best)
    return DeviceLayout(Mesh(grid, (MEMBER, DATA), axis_types=auto), members)
