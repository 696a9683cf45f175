"""Spread members over devices and, if there are fewer members, also the rows of their batches.
Only this file names the axes of a mesh.

No data crosses the "member" axis. On the "data" axis, each shard computes a partial sum of the
loss, whose normalizers and BatchNorm statistics are those of the full batch, and of the gradient;
the step adds up the partial gradients once. A member's training therefore does not depend on the
number of shards.
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
PREDICT_BATCH = 32  # samples per device and prediction call, summed over its members


class DeviceLayout(NamedTuple):
    """How a population's members are spread over devices; on one device nothing is sharded."""

    mesh: Mesh  # [member, data]
    num_members: int  # arrays of a single member have no member axis

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that a member's batch is spread over, for `jax.lax.psum`: () or ("data",)."""
        return (DATA,) if self.mesh.shape[DATA] > 1 else ()

    @property
    def platform(self) -> str:
        """The platform of the devices, as JAX names it."""
        return self.mesh.devices.flat[0].platform

    @property
    def members_per_device(self) -> int:
        return -(-self.num_members // self.mesh.shape[MEMBER])

    def concurrent_members(self, method: str, chunk_size: int) -> int:
        """Number of members that a device computes at the same time, see `batch_members`."""
        sizes = {
            "vmap": self.members_per_device,
            "chunks": min(chunk_size, self.members_per_device),
            "wide": min(chunk_size, self.members_per_device),
        }
        return sizes.get(method, 1)

    @property
    def predict_batch(self) -> int:
        """Samples per prediction call: per device `PREDICT_BATCH` / its members, at least 2."""
        return self.mesh.shape[DATA] * max(2, PREDICT_BATCH // self.members_per_device)

    def shard(
        self, function: Callable[[Any, Any], Any], split_rows: bool = False
    ) -> Callable[[Any, Any], Any]:
        """Return `function(members, shared)`, run on each device for the members of that device.

        A `StreamedBatch` in `shared` is split over devices as `batch_placement` placed it.
        split_rows: `shared` is rows of a batch, split over devices; the result has a row for each.
        """
        if self.mesh.size == 1:
            return function
        member, rows = (MEMBER,) if self.num_members > 1 else (), (DATA,) if split_rows else ()

        def spec(leaf):
            return P(*self.axes) if isinstance(leaf, StreamedBatch) else P(*rows)

        def sharded(members, shared):
            specs = jax.tree.map(spec, shared, is_leaf=lambda leaf: isinstance(leaf, StreamedBatch))
            # check_vma would require each custom gradient to sum over "data"; the step does it.
            return jax.shard_map(
                function, mesh=self.mesh, in_specs=(P(*member), specs),
                out_specs=P(*member, *rows), check_vma=False,
            )(members, shared)  # fmt: skip

        return sharded

    def place(self, members: Any) -> Any:
        """Place arrays of members [M, ...] on their devices.

        Idle copies of the last member are appended until every device has the same number.
        """
        if self.mesh.size == 1:
            return jax.device_put(members)
        if self.num_members == 1:
            return self.replicate(members)

        def fill(leaf):
            num_idle = -len(leaf) % self.mesh.shape[MEMBER]
            return np.concatenate([leaf, np.repeat(np.asarray(leaf)[-1:], num_idle, 0)])

        return self._place(jax.tree.map(fill, members), P(MEMBER))

    def replicate(self, shared: Any) -> Any:
        """Copy arrays that all members read to every device."""
        if self.mesh.size == 1:
            return shared
        return self._place(shared, P())

    def batch_placement(self, batch: int) -> tuple[Sequence[int], Callable[[Any], Any]]:
        """The indices of the batch rows that this process reads, and a function that places them.

        The function turns arrays [rows, ...] into arrays [batch, ...] on the devices, in which the
        rows of each shard (`sampling.shard_rows`) are contiguous.
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
        """Make `predict(members, rows)`, which is sharded with `split_rows`, read `rows` from the
        host and return its result there.
        """
        if self.mesh.size == 1:
            return predict
        return lambda members, rows: self.to_host(predict(members, self._place(rows, P(DATA))))

    def to_host(self, members: Any) -> Any:
        """Copy arrays of members, without idle members, to the host of every process."""
        take = slice(self.num_members) if self.num_members > 1 else ...
        return jax.tree.map(lambda leaf: leaf[take], fetch(members))

    def abstract(self, members: Any) -> Any:
        """Shapes and shardings of the arrays that `place` would return."""
        sharding = NamedSharding(self.mesh, P(MEMBER) if self.num_members > 1 else P())

        def shape(leaf):
            sizes = leaf.shape
            if self.num_members > 1:  # with the idle members that `place` appends
                sizes = (len(leaf) + -len(leaf) % self.mesh.shape[MEMBER], *sizes[1:])
            return jax.ShapeDtypeStruct(sizes, leaf.dtype, sharding=sharding)

        return jax.tree.map(shape, members)

    def abstract_shared(self, shared: Any, rows: bool = False) -> Any:
        """Shapes and shardings of the arrays that `replicate` would return.

        rows: `shared` is rows of a batch, placed by `batch_placement` instead.
        """
        sharding = NamedSharding(self.mesh, P(*self.axes) if rows else P())
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shared
        )

    def _place(self, tree: Any, spec: P) -> Any:
        """Place arrays that every process holds in full; each device gets its shard."""
        sharding = NamedSharding(self.mesh, spec)
        if jax.process_count() == 1:
            return jax.device_put(tree, sharding)

        def place(leaf):
            leaf = np.asarray(leaf)
            return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

        return jax.tree.map(place, tree)


def fetch(tree: Any) -> Any:
    """Copy arrays, with all their shards, to the host of every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)

    def fetch_leaf(leaf):
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return np.asarray(leaf)
        if leaf.is_fully_replicated:
            return np.asarray(leaf.addressable_data(0))
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(fetch_leaf, tree)


def device_layout(
    num_members: int, batch: int, devices: Sequence[Any] | None = None
) -> DeviceLayout:
    """The layout that minimizes the work of the busiest device; ties go to the fewest shards.

    The shards of a batch wait for each other, so they are neighboring devices.

    Args:
        batch: rows of each member's batch; every shard has an even number of rows, see
            `sampling.shard_rows`.
        devices: None for all devices.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    shards = [n for n in range(1, count + 1) if count % n == 0 and (n == 1 or batch % (2 * n) == 0)]
    num_shards = min(shards, key=lambda n: (-(-num_members // (count // n)) / n, n))
    # A vmapped convolution fails with explicit axes. Automatic axes need shard_map: without it,
    # every device would compute all members (https://github.com/openxla/xla/issues/47945).
    auto = (AxisType.Auto, AxisType.Auto)
    # On a pod, `make_mesh` would reject most shapes that do not follow the wiring.
    grid = np.array(devices).reshape(-1, num_shards)
    return DeviceLayout(Mesh(grid, (MEMBER, DATA), axis_types=auto), num_members)
