"""Fixtures shared by all tests."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.local import worker_cores

# Before any test imports jax. The promises about results are made for CPU.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile more than they compute: half the time without the compiler's own optimizations, and
# half of that by its older way to write loops. A program that one test compiled is not compiled
# again by the next, nor by a test's own processes.
# Workers inherit all this from the process that starts them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="tinyjax-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"
    flags = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
else:  # a worker has cores of its own, as those of a sweep have
    worker, workers = os.environ["PYTEST_XDIST_WORKER"], os.environ["PYTEST_XDIST_WORKER_COUNT"]
    if cores := worker_cores(int(worker.removeprefix("gw")), int(workers)):
        os.sched_setaffinity(0, cores)


def pytest_collection_modifyitems(items):
    """Whole runs first, which take longest: two workers then end at the same time."""
    items.sort(key=lambda item: item.path.parent != Path(__file__).parent)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of public data sets, $TINYJAX_DATA.

    Where it is absent the test is skipped; with TINYJAX_REQUIRE_DATA=1 (set by .ci/run) it fails,
    so that continuous integration cannot pass by finding nothing to test.
    """
    root = Path(os.environ.get("TINYJAX_DATA", "../shared/data"))
    if root.is_dir():
        return root
    message = f"TINYJAX_DATA: no folder {root.absolute()}"
    if os.environ.get("TINYJAX_REQUIRE_DATA") == "1":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture
def compiled():
    """Names of what was compiled since."""
    import jax.monitoring

    names = []

    def listen(name, *_, **__):
        if name.endswith("backend_compile_duration"):
            names.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """A folder that all workers share, deleted by pytest after some later runs."""
    root = tmp_path_factory.getbasetemp()
    return root.parent if "PYTEST_XDIST_WORKER" in os.environ else root


@pytest.fixture(scope="session")
def noise_images(shared_folder) -> Path:
    """The folder of images of noise, of two classes, that tiny classifiers are trained on."""
    from tests.miniatures import write_noise_images

    folder = shared_folder / "noise-images"
    with lock(folder):
        return folder if folder.exists() else write_noise_images(folder)


@pytest.fixture(scope="session")
def train_once(shared_folder, noise_images):
    """`train_once(name) -> folder`: train tests/configs/<name>.py, once for all workers.

    The config's argument is the folder of `noise_images`. The returned folder holds "run", which no
    test may change, and "programs", the text of the compiled programs.
    """
    import jax

    from tinyjax.train import main

    def train(name):
        folder = shared_folder / "trained-once" / name
        config = f"{Path(__file__).parent}/configs/{name}.py:{noise_images}"
        with lock(folder):
            if not (folder / "run" / "results.csv").exists():
                jax.config.update("jax_dump_ir_to", str(folder / "programs"))
                try:
                    assert main(["--config", config, "--workdir", str(folder / "run")]) == 0
                finally:
                    jax.config.update("jax_dump_ir_to", "")
        return folder

    return train


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a lock on the folder, against other workers."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
