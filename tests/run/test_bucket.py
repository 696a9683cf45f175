"""A run folder in a bucket, on a local server that emulates Google Cloud Storage."""

import socket
import sys
from http import HTTPStatus

import pytest

from tests.test_classify import StopAtCheck
from tests.test_resume import config_path, read_contents
from tests.test_resume import train as train_in_process
from tinyjax import config as configs
from tinyjax.config.paths import parse_path
from tinyjax.errors import exit_code
from tinyjax.train import STOPPED, train
from tinyjax.train import main as train_main


def with_generations(handler):
    """Make a handler of the emulator return and check the generation of an object, as Google Cloud
    Storage does.

    tensorstore rewrites a checkpoint's manifest on the condition that its generation has not
    changed. It knows the generation from its own write or, depending on timing, from a read;
    without the header of the read the rewrite fails with "Malformed StorageGeneration".
    """
    from gcp_storage_emulator.exceptions import NotFound

    def wrapped(request, response, storage, *args, **kwargs):
        (name,) = request.query.get("name", [request.params.get("object_id")])
        try:
            generation = storage.get_file_obj(request.params["bucket_name"], name)["generation"]
        except NotFound:
            generation = "0"
        if request.query.get("ifGenerationMatch", [generation]) != [generation]:
            _ = request.data  # an answer to an unread request would reset the connection
            response.status = HTTPStatus.PRECONDITION_FAILED
        elif request.query.get("ifGenerationNotMatch") == [generation]:
            response.status = HTTPStatus.NOT_MODIFIED
        else:
            if request.method == "GET" and generation != "0":
                response["x-goog-generation"] = generation
            handler(request, response, storage, *args, **kwargs)

    return wrapped


@pytest.fixture(scope="module")
def bucket():
    """The address of the bucket."""
    from gcp_storage_emulator import server as emulator

    changed = pytest.MonkeyPatch()
    handlers = [
        (path, {method: with_generations(handler) for method, handler in methods.items()})
        if "object_id" in path or "upload" in path
        else (path, methods)
        for path, methods in emulator.HANDLERS
    ]
    changed.setattr(emulator, "HANDLERS", handlers)
    with socket.socket() as port_socket:
        port_socket.bind(("127.0.0.1", 0))
        port = port_socket.getsockname()[1]
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    server.start()
    address = f"http://127.0.0.1:{port}"
    unreachable = "127.0.0.1:1"  # server of credentials: refuses at once
    for name, value in {
        "STORAGE_EMULATOR_HOST": address,
        "TENSORSTORE_GCS_HTTP_URL": address,
        "GCE_METADATA_HOST": unreachable,
        "GCE_METADATA_ROOT": unreachable,
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # would ask Google for the type of the bucket
    }.items():
        changed.setenv(name, value)
    yield "gs://bucket"
    server.stop()
    changed.undo()


@pytest.mark.parametrize("name", ["classifier", pytest.param("detector", marks=pytest.mark.slow)])
def test_run_in_a_bucket_is_stopped_and_resumed(name, bucket, train_once, noise_images, capsys):
    local, remote = train_once(name) / "run", parse_path(f"{bucket}/{name}")
    path = config_path(name, noise_images)
    config = configs.load(path)
    assert train(config, remote, stop=StopAtCheck(config.save_every + 1)) == STOPPED
    code, _, err = train_in_process(path, remote)
    assert code == 0, err
    assert read_contents(remote) == read_contents(local)
    assert "resuming at step" in (remote / "log.txt").read_text()
    argv = ["--config", path, "--workdir", str(remote)]
    capsys.readouterr()
    assert train_main(argv) == 0
    assert "this run is finished" in capsys.readouterr().out
    names = {str(p.relative_to(remote)) for p in remote.glob("*/*.png")}
    assert {str(p.relative_to(local)) for p in local.glob("*/*.png")} == names
    assert exit_code(lambda: train_main([*argv, "--config.optimizer.lr=0.5"])) == 2
    message = f"optimizer.lr: {config.optimizer.lr} in the folder, 0.5 in this config"
    assert message in capsys.readouterr().err


def test_missing_packages_are_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    argv = ["--config", config_path("detector", ""), "--workdir", "gs://b/r"]
    assert exit_code(lambda: train_main(argv)) == 2
    assert "pip install 'tinyjax[bucket]'" in capsys.readouterr().err
