"""StableHLO files: a function as `jax.export` serializes it, for CPU, CUDA and TPU.

    file = convert(function, batch=None)  # bytes
    run = load(file)
    run(images)  # {"logits_4": f32[N, h, w, n], ..}

A file is a zip archive of FUNCTION, which `jax.export.deserialize` reads, and METADATA. JAX is
imported by the functions, because `formats` must not import it.
"""

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyjax.errors import UserError
from tinyjax.exporting.runtimes import FileDescription, Runner

if TYPE_CHECKING:
    from tinyjax.exporting.functions import ExportedFunction

FUNCTION, METADATA = "function.jax", "metadata.json"  # in the archive
PLATFORMS = ("cpu", "cuda", "tpu")
EPOCH = (1980, 1, 1, 0, 0, 0)  # of all entries, so that equal networks are equal files


def convert(function: "ExportedFunction", batch: int | None = None) -> bytes:
    """A file of the function, with its metadata. batch: number of images per call; None: any."""
    import jax

    size = jax.export.symbolic_shape("batch")[0] if batch is None else batch
    image = jax.ShapeDtypeStruct((size, *function.input_shape), function.dtype)
    with _no_source_locations():
        exported = jax.export.export(jax.jit(function.call), platforms=PLATFORMS)(image)
    entries = {
        FUNCTION: bytes(exported.serialize()),
        METADATA: json.dumps(function.metadata).encode(),
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content)
    return stream.getvalue()


def details() -> dict[str, Any]:
    """Fields of the record: what the file is for, and who wrote it."""
    import jax

    return {"platforms": [*PLATFORMS], "jax": jax.__version__}


def count_operations(content: bytes) -> Counter[str]:
    """The operations of a file, of all platforms together."""
    text = _deserialize(content).mlir_module()
    return Counter(re.findall(r"\bstablehlo\.(\w+)", text))


def describe(file: Path) -> FileDescription:
    """The description of a file. Raises UserError as `load` does."""
    batch = _deserialize(file).in_avals[0].shape[0]
    metadata = json.loads(_read(file, METADATA))
    return FileDescription(metadata, batch if isinstance(batch, int) else None)


def load(file: Path | bytes, threads: int = 0, platform: str | None = None) -> Runner:
    """A file, or its bytes, in JAX.

    Args:
        threads: ignored; JAX uses all cores that its process may use.
        platform: one of PLATFORMS; None: that of JAX's default device.

    Raises UserError for a file that this version of JAX cannot read.
    """
    import jax

    device, call = jax.devices(platform)[0], jax.jit(_deserialize(file).call)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return jax.device_get(call(jax.device_put(images, device)))

    return run


@contextmanager
def _no_source_locations() -> Iterator[None]:
    """Lower without the paths and lines of source files, which differ between machines."""
    import jax

    name = "jax_traceback_in_locations_limit"
    limit = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, limit)


def _deserialize(file: Path | bytes) -> Any:
    import jax

    try:
        return jax.export.deserialize(bytearray(_read(file, FUNCTION)))
    except UserError:
        raise
    except Exception as error:  # of jax: that of a serialization it does not know, or of its parser
        raise _unreadable(file, error) from error


def _read(file: Path | bytes, name: str) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(file) if isinstance(file, bytes) else file) as archive:
            return archive.read(name)
    except (zipfile.BadZipFile, KeyError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path | bytes, error: Exception) -> UserError:
    name, reason = "" if isinstance(file, bytes) else f"{file}: ", " ".join(str(error).split())
    return UserError(f"{name}not a StableHLO file that this version of JAX can read ({reason})")
