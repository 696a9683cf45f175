"""A run folder in a bucket, of a server on this machine that speaks Google's protocol."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_classify import Later
from tests.test_resume import contents, run
from tinyjax import config as configs
from tinyjax import train
from tinyjax.config.paths import path_of

CONFIG = str(Path(__file__).parents[1] / "configs" / "detector.py")


@pytest.fixture(scope="module")
def bucket():
    """Its address."""
    from gcp_storage_emulator.server import create_server

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    server.start()
    address = f"http://127.0.0.1:{port}"
    nobody = "127.0.0.1:1"  # whom to ask for credentials: refuses at once
    own = {
        "STORAGE_EMULATOR_HOST": address,
        "TENSORSTORE_GCS_HTTP_URL": address,
        "GCE_METADATA_HOST": nobody,
        "GCE_METADATA_ROOT": nobody,
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # asks Google itself for a bucket's kind
    }
    before = {name: os.environ.get(name) for name in own}
    os.environ |= own
    yield "gs://bucket"
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    server.stop()


def test_stopped_in_a_bucket_and_gone_on_with(bucket, tmp_path):
    local, there = tmp_path / "run", path_of(f"{bucket}/run")
    code, _, err = run(local)
    assert code == 0, err
    config = configs.load(CONFIG)
    assert train.train(config, there, stop=Later(config.save_every + 1)) == train.STOPPED
    code, _, err = run(there)
    assert code == 0, err
    assert contents(there) == contents(local)
    assert "resuming at step" in (there / "log.txt").read_text()
    code, out, err = run(there)
    assert code == 0, err
    assert "this run is finished" in out
    names = {str(p.relative_to(there)) for p in there.glob("*/*.png")}
    assert {str(p.relative_to(local)) for p in local.glob("*/*.png")} == names


def test_another_config_is_refused_there_too(bucket):
    there = f"{bucket}/run"
    code, _, err = run(there, more=["--config.optimizer.lr=0.5"])
    assert code == 2
    assert "optimizer.lr: 0.001 there, 0.5 here" in err


def test_without_its_packages_it_says_which(tmp_path):
    code = (
        "import sys; sys.modules['gcsfs'] = None; from tinyjax import train; "
        "from tinyjax.errors import exit_code; "
        f"sys.exit(exit_code(lambda: train.main(['--config', {CONFIG!r}, '--workdir', 'gs://b/r'])))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "pip install 'tinyjax[bucket]'" in done.stderr
