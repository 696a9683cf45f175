"""Ultra-small infrared detectors in JAX.

    model = tinyjax.load("runs/mine")         # a finished run, or its weights alone
    detections = model(image)                 # NumPy in and out
    tinyjax.train(config, "runs/mine")        # as `python -m tinyjax.train` does

`import tinyjax` imports neither JAX nor any other slow module.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinyjax.api import load, train

__all__ = ["load", "train"]

# Before jax is imported: 3 hides all but fatal messages of its C++ code. XLA prints an error for
# each program that compiles for more than two minutes; real errors are exceptions as well.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'tinyjax' has no attribute {name!r}")
    # Importing the module tinyjax.train sets this package's attribute `train` to the module. Import
    # it first, so that the function `train` replaces it.
    import_module("tinyjax.train")
    function = globals()[name] = getattr(import_module("tinyjax.api"), name)
    globals()["train"] = import_module("tinyjax.api").train
    return function


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
