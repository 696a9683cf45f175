"""Functions that equations of a jaxpr call, for evaluators of jaxprs."""

from collections.abc import Mapping
from typing import Any

# primitive -> the parameter with the function that it calls
CALLED = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat": "jaxpr",
    "checkpoint": "jaxpr",
}


def call_name(params: Mapping[str, Any], called: Any) -> str:
    """The name of a called function; that of a custom derivative is part of its debug info."""
    if "name" in params:
        return params["name"]
    info = called.jaxpr.debug_info
    return info.func_src_info.split(" ")[0] if info else ""


def platform_form(params: Mapping[str, Any]) -> int:
    """The branch of a `platform_index` that is not of one platform, see `ops.conv`."""
    return next(i for i, platforms in enumerate(params["platforms"]) if platforms is None)
