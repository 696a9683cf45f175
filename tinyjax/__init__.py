"""Ultra-small infrared detectors in JAX.

    model = tinyjax.load("runs/mine")         # a finished run, or its weights alone
    found = model(image)                      # NumPy in and out
    tinyjax.train(config, "runs/mine")        # what `python -m tinyjax.train` does

`import tinyjax` imports neither JAX nor anything else that is slow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinyjax import train as train
    from tinyjax.api import load as load


def __getattr__(name: str) -> Any:
    if name == "load":
        return import_module("tinyjax.api").load
    if name == "train":  # the module, which can be called
        return import_module("tinyjax.train")
    raise AttributeError(f"module 'tinyjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "load", "train"])
