"""Two processes with some simulated devices each, compared with one process with all devices."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.test_resume import config_path
from tinyjax.errors import EX_UNAVAILABLE, MachineError, UserError, exit_code
from tinyjax.run import distributed
from tinyjax.run.csv_files import read_rows
from tinyjax.run.weights import read_weights
from tinyjax.train import main

ROOT = Path(__file__).parents[2]
MAX_EXIT_TIME = 60  # seconds between the end of one process and that of the others


def start(folder, config, processes, devices, *more):
    """Start the processes of a run in float64, which have `devices` together."""
    with socket.socket() as port_socket:
        port_socket.bind(("127.0.0.1", 0))
        port = port_socket.getsockname()[1]
    count = f"--xla_force_host_platform_device_count={devices // processes}"
    flags = f"{os.environ.get('XLA_FLAGS', '')} {count}"
    env = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    commands = [
        [
            *(sys.executable, "-m", "tests.float64_train"),
            *("--config", config, "--workdir", str(folder)),
            *(["--processes", f"127.0.0.1:{port},{i}/{processes}"] if processes > 1 else []),
            *("--expect", f"cpu:{devices}:{processes}", *more),
        ]
        for i in range(processes)
    ]
    pipe = subprocess.PIPE
    return [subprocess.Popen(c, env=env, stdout=pipe, stderr=pipe, text=True) for c in commands]


def wait_all(running):
    """Wait for the processes and return their exit codes and outputs."""
    outputs = ["".join(process.communicate()) for process in running]
    return [process.returncode for process in running], outputs


def wait_until(condition, running):
    while not condition() and all(process.poll() is None for process in running):
        time.sleep(0.01)


def assert_same_results(actual_folder, expected_folder, tolerance):
    """Compare the tables and weights of two run folders."""
    for name in ("members", "metrics", "results"):
        actual, expected = (
            read_rows(folder / f"{name}.csv") for folder in (actual_folder, expected_folder)
        )
        assert [row.keys() for row in actual] == [row.keys() for row in expected]
        for a, b in zip(actual, expected, strict=True):
            for field in a:
                if a[field] != b[field]:
                    message = f"{name}: {a}, {field}"
                    np.testing.assert_allclose(
                        float(a[field]), float(b[field]), rtol=tolerance, err_msg=message
                    )
    files = sorted(file.stem for file in (actual_folder / "weights").glob("*.safetensors"))
    assert files == sorted(
        file.stem for file in (expected_folder / "weights").glob("*.safetensors")
    )
    for file in files:
        actual, expected = (
            {**trees["params"], **trees["stats"]}
            for trees, _ in (
                read_weights(folder / "weights" / file)
                for folder in (actual_folder, expected_folder)
            )
        )
        largest = max(np.abs(leaf).max() for leaf in expected.values())
        for path, leaf in expected.items():
            error = np.abs(actual[path] - leaf).max()
            assert error < tolerance * largest, (file, path)


@pytest.fixture
def config(noise_images):
    return config_path("sweep_two_processes", noise_images)


def assert_same_as_in_one_process(folder, outputs, config, devices, *more):
    """Compare with the results of a single process. outputs: of the two processes."""
    single = folder.with_name("single-process")
    codes, single_outputs = wait_all(start(single, config, 1, devices, *more))
    assert codes == [0], single_outputs
    assert_same_results(folder, single, 1e-9)
    assert f"cpu, {devices} x cpu in 2 processes" in outputs[0]
    assert "tinyjax" not in outputs[1]  # only process 0 logs


@pytest.mark.slow
def test_two_processes_train_as_one(config, tmp_path):
    """One member, whose batch is divided between the two."""
    folder, only_one = tmp_path / "run", ("--sweep.limit", "1")
    codes, outputs = wait_all(start(folder, config, 2, 2, *only_one))
    assert codes == [0, 0], outputs
    assert_same_as_in_one_process(folder, outputs, config, 2, *only_one)


@pytest.mark.slow
def test_stop_kill_and_resume(config, tmp_path):
    """A signal to one process stops both at the same step; a killed process ends the other; and
    the final results are those of a single process.
    """
    folder = tmp_path / "run"
    checkpoints = folder / "populations" / "0" / "checkpoints"

    running = start(folder, config, 2, 8)
    wait_until((folder / "populations" / "0" / "metrics.csv").exists, running)
    running[1].send_signal(signal.SIGTERM)
    codes, outputs = wait_all(running)
    assert codes == [75, 75], outputs
    step = max(int(file.name) for file in checkpoints.iterdir() if file.name.isdecimal())
    assert f"saved at step {step}" in outputs[0]

    running = start(folder, config, 2, 8)
    wait_until(lambda: f"resuming at step {step} of 6" in (folder / "log.txt").read_text(), running)
    running[1].kill()
    begin = time.monotonic()
    codes, outputs = wait_all(running)
    assert time.monotonic() - begin < MAX_EXIT_TIME
    assert codes[0] in (EX_UNAVAILABLE, -signal.SIGABRT), outputs
    assert codes[1] == -signal.SIGKILL

    codes, outputs = wait_all(start(folder, config, 2, 8))
    assert codes == [0, 0], outputs
    assert_same_as_in_one_process(folder, outputs, config, 8)


def test_missing_process_ends_the_wait(config, tmp_path):
    running = start(tmp_path / "run", config, 2, 2, "--join-timeout", "3")
    running[1].kill()
    code, outputs = wait_all(running[:1])
    running[1].communicate()
    assert code == [EX_UNAVAILABLE]
    assert "some processes have not joined after 3 s" in outputs[0]
    assert "Traceback" not in outputs[0]


@pytest.mark.parametrize(
    "expected", ["tpu:1", "cpu:2", "cpu:1:2"], ids=["platform", "devices", "processes"]
)
def test_unexpected_devices_are_an_error(expected):
    with pytest.raises(MachineError, match=f"--expect {expected}: this is cpu:1:1"):
        distributed.check_devices(expected)


def test_command_checks_the_devices(config, tmp_path, capsys):
    argv = ["--config", config, "--workdir", str(tmp_path / "run"), "--expect", "tpu:8:2"]
    assert exit_code(lambda: main(argv)) == EX_UNAVAILABLE
    assert capsys.readouterr().err == "error: --expect tpu:8:2: this is cpu:1:1\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["tpu", "tpu:8:2:1", "tpu:x", "tpu:0", ":8", ""])
def test_invalid_expected_devices(text):
    with pytest.raises(UserError, match=r"--expect .*: give platform:devices"):
        distributed.check_devices(text)


@pytest.mark.parametrize("text", ["host", "host:1,0", "host:1,2/2", "host,0/2", "host:x,0/2"])
def test_invalid_process_address(text):
    with pytest.raises(UserError, match=r"--processes .*: give host:port,i/n"):
        distributed.join_processes(text, 1)
