"""One member's function made one of many members."""

from collections.abc import Callable
from typing import Any

import jax


def batch_members(
    one: Callable[[Any, Any], Any], how: str, chunk: int = 0
) -> Callable[[Any, Any], Any]:
    """`one(own, shared)` of members along the first axis of `own`; all see the same `shared`.

    how: "none", for one member without that axis: the function itself; "vmap", all at once; "map",
    one after the other; "chunks", so many at once, one chunk after the other. Which is faster where
    is in docs/performance.md; a chunk is for what does not fit into memory.
    """
    if how == "none":
        return one
    if how == "vmap":
        return jax.vmap(one, in_axes=(0, None))
    size = {"map": None, "chunks": chunk}[how]
    return lambda own, shared: jax.lax.map(lambda each: one(each, shared), own, batch_size=size)
