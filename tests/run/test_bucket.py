"""A run folder in a bucket, on a local server that emulates Google Cloud Storage."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_classify import StopAtCheck
from tests.test_resume import read_contents
from tests.test_resume import train as run
from tinyjax import config as configs
from tinyjax.config.paths import parse_path
from tinyjax.train import STOPPED, train

CONFIG = str(Path(__file__).parents[1] / "configs" / "detector.py")


@pytest.fixture(scope="module")
def bucket():
    """The address of the bucket."""
    from gcp_storage_emulator.server import create_server

    with socket.socket() as port_socket:
        port_socket.bind(("127.0.0.1", 0))
        port = port_socket.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    server.start()
    address = f"http://127.0.0.1:{port}"
    unreachable = "127.0.0.1:1"  # server of credentials: refuses at once
    variables = {
        "STORAGE_EMULATOR_HOST": address,
        "TENSORSTORE_GCS_HTTP_URL": address,
        "GCE_METADATA_HOST": unreachable,
        "GCE_METADATA_ROOT": unreachable,
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # would ask Google for the type of the bucket
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ |= variables
    yield "gs://bucket"
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    server.stop()


def test_run_in_a_bucket_is_stopped_and_resumed(bucket, tmp_path):
    local, remote = tmp_path / "run", parse_path(f"{bucket}/run")
    code, _, err = run(local)
    assert code == 0, err
    config = configs.load(CONFIG)
    assert train(config, remote, stop=StopAtCheck(config.save_every + 1)) == STOPPED
    code, _, err = run(remote)
    assert code == 0, err
    assert read_contents(remote) == read_contents(local)
    assert "resuming at step" in (remote / "log.txt").read_text()
    code, out, err = run(remote)
    assert code == 0, err
    assert "this run is finished" in out
    names = {str(p.relative_to(remote)) for p in remote.glob("*/*.png")}
    assert {str(p.relative_to(local)) for p in local.glob("*/*.png")} == names


def test_another_config_in_a_bucket_is_an_error(bucket):
    remote = f"{bucket}/run"
    code, _, err = run(remote, overrides=["--config.optimizer.lr=0.5"])
    assert code == 2
    assert "optimizer.lr: 0.001 in the folder, 0.5 in this config" in err


def test_missing_packages_are_named(tmp_path):
    code = (
        "import sys; sys.modules['gcsfs'] = None; from tinyjax.train import main; "
        "from tinyjax.errors import exit_code; "
        f"sys.exit(exit_code(lambda: main(['--config', {CONFIG!r}, '--workdir', 'gs://b/r'])))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "pip install 'tinyjax[bucket]'" in done.stderr
