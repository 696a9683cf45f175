"""Turn one member's function into a function of all members."""

from collections.abc import Callable
from typing import Any

import jax


def batch_members(
    function: Callable[[Any, Any], Any], method: str, chunk_size: int = 0
) -> Callable[[Any, Any], Any]:
    """`function(member, shared)` over the first axis of `member`; all members read `shared`.

    method: "vmap": all members at once; "map": one after the other; "chunks": `chunk_size` at once,
    one chunk after the other, for members that do not fit into memory together; "wide": as chunks,
    of which the network is computed side by side (`population.wide`); "none": the function itself,
    for a single member without that axis. docs/performance.md compares the speed.
    """
    if method == "none":
        return function
    if method == "vmap":
        return jax.vmap(function, in_axes=(0, None))
    batch_size = {"map": None, "chunks": chunk_size, "wide": chunk_size}[method]
    return lambda members, shared: jax.lax.map(
        lambda member: function(member, shared), members, batch_size=batch_size
    )
