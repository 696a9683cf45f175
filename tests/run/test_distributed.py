"""Several processes that run one program, for real: two of them with four simulated devices each
against one with all eight.
"""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tinyjax.errors import EX_UNAVAILABLE, MachineError, UserError
from tinyjax.run import distributed
from tinyjax.run.weights import read_weights

ROOT = Path(__file__).parents[2]
MANY = str(ROOT / "tests" / "configs" / "sweep_two_processes.py")
ENDED = 60  # seconds that a process may outlive another one


def started(folder, processes, *more, config=MANY, script=("-m", "tests.float64_train")):
    """Processes of one run, which have eight devices together."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    each = 8 // processes
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={each}"
    env = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    commands = [
        [
            *(sys.executable, *script, "--config", config, "--workdir", str(folder)),
            *(["--processes", f"127.0.0.1:{port},{i}/{processes}"] if processes > 1 else []),
            *("--expect", f"cpu:8:{processes}", *more),
        ]
        for i in range(processes)
    ]
    pipe = subprocess.PIPE
    return [subprocess.Popen(c, env=env, stdout=pipe, stderr=pipe, text=True) for c in commands]


def ended(running):
    """Exit codes and what was said, each of all processes."""
    said = ["".join(process.communicate()) for process in running]
    return [process.returncode for process in running], said


def until(there, running):
    while not there() and all(process.poll() is None for process in running):
        time.sleep(0.01)


def rows(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def agree(one, other, tolerance):
    """Tables and weights of two run folders."""
    for name in ("members", "metrics", "results"):
        ours, theirs = rows(one / f"{name}.csv"), rows(other / f"{name}.csv")
        assert [row.keys() for row in ours] == [row.keys() for row in theirs]
        for a, b in zip(ours, theirs, strict=True):
            for field in a:
                if a[field] != b[field]:
                    place = f"{name}: {a}, {field}"
                    np.testing.assert_allclose(
                        float(a[field]), float(b[field]), rtol=tolerance, err_msg=place
                    )
    files = sorted(file.stem for file in (one / "weights").glob("*.safetensors"))
    assert files == sorted(file.stem for file in (other / "weights").glob("*.safetensors"))
    for file in files:
        ours, theirs = (read_weights(folder / "weights" / file)[0] for folder in (one, other))
        ours, theirs = ({**of["params"], **of["stats"]} for of in (ours, theirs))
        largest = max(np.abs(leaf).max() for leaf in ours.values())
        for path, leaf in ours.items():
            error = np.abs(theirs[path] - leaf).max()
            assert error < tolerance * largest, (file, path)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    codes, said = ended(started(folder, 1))
    assert codes == [0], said
    return folder


def test_stopped_killed_and_gone_on_with(alone, tmp_path):
    """Told to stop by a signal to one of them, both save the same step; where one is killed, the
    other does not stay; and what they end with is what a single process ends with.
    """
    folder = tmp_path / "run"
    checkpoints = folder / "populations" / "0" / "checkpoints"

    running = started(folder, 2)
    until((folder / "populations" / "0" / "metrics.csv").exists, running)
    running[1].send_signal(signal.SIGTERM)
    codes, said = ended(running)
    assert codes == [75, 75], said
    (step,) = (int(file.name) for file in checkpoints.iterdir() if file.name.isdecimal())
    assert f"saved at step {step}" in said[0]

    running = started(folder, 2)
    until(lambda: f"resuming at step {step} of 6" in (folder / "log.txt").read_text(), running)
    running[1].kill()
    begin = time.monotonic()
    codes, said = ended(running)
    assert time.monotonic() - begin < ENDED
    assert codes[0] in (EX_UNAVAILABLE, -signal.SIGABRT), said
    assert codes[1] == -signal.SIGKILL

    codes, said = ended(started(folder, 2))
    assert codes == [0, 0], said
    agree(folder, alone, 1e-9)
    assert "cpu, 8 x cpu of 2 processes" in said[0]
    assert "tinyjax" not in said[1]  # the first alone speaks


def test_nobody_comes(tmp_path):
    running = started(tmp_path / "run", 2, "--wait", "3")
    running[1].kill()
    code, said = ended(running[:1])
    running[1].communicate()
    assert code == [EX_UNAVAILABLE]
    assert "after 3 s not all of them are there" in said[0]
    assert "Traceback" not in said[0]


@pytest.mark.parametrize(
    "wanted", ["tpu:1", "cpu:2", "cpu:1:2"], ids=["platform", "devices", "processes"]
)
def test_other_devices_than_expected(wanted):
    with pytest.raises(MachineError, match=f"--expect {wanted}: here are cpu:1:1"):
        distributed.check_devices(wanted)


def test_the_command_says_so(tmp_path):
    argv = ["--config", MANY, "--workdir", str(tmp_path / "run"), "--expect", "tpu:8:2"]
    command = [sys.executable, "-m", "tinyjax.train", *argv]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == EX_UNAVAILABLE
    assert done.stderr == "error: --expect tpu:8:2: here are cpu:1:1\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["tpu", "tpu:8:2:1", "tpu:x", "tpu:0", ":8", ""])
def test_devices_that_are_none(text):
    with pytest.raises(UserError, match=r"--expect .*: give platform:devices"):
        distributed.check_devices(text)


@pytest.mark.parametrize("text", ["host", "host:1,0", "host:1,2/2", "host,0/2", "host:x,0/2"])
def test_processes_that_are_none(text):
    with pytest.raises(UserError, match=r"--processes .*: give host:port,i/n"):
        distributed.join_processes(text, 1)
