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
from tinyjax.errors import UserError, exit_code
from tinyjax.run import lease
from tinyjax.run.lease import MAX_RENEWAL_AGE
from tinyjax.run.logs import WRITE_INTERVAL
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
        if request.query.get("uploadType") == ["multipart"]:
            name = request.data["meta"]["name"]
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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["classifier", "detector"])
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


class Watch:
    """A clock that is advanced by `sleep`, which calls `each` at every second."""

    def __init__(self, each=lambda second: None):
        self.now, self._each = 0, each

    def time(self):
        return self.now

    def sleep(self, seconds):
        for _ in range(seconds):
            self.now += 1
            self._each(self.now)


@pytest.fixture
def lease_file(bucket, request):
    return parse_path(f"{bucket}/{request.node.name}/heartbeats/0-of-1.lock")


@pytest.fixture
def make_lease(lease_file):
    """`make_lease(watch) -> Lease` of another process on the same file."""

    def make(watch=None):
        watch = watch or Watch()
        return lease.Lease(lease_file, watch.time, watch.sleep)

    return make


def test_lease_is_refused_while_another_process_renews_it(make_lease, lease_file):
    first = make_lease()
    assert first.acquire()
    watch = Watch(lambda second: second % WRITE_INTERVAL or first.renew())
    assert not make_lease(watch).acquire()
    assert watch.now <= WRITE_INTERVAL + lease.RETRY_INTERVAL
    assert first.renew()  # the refused process has not changed it
    first.release()
    assert not lease_file.exists()
    watch = Watch()
    assert make_lease(watch).acquire()
    assert watch.now == 0


def test_lease_of_a_dead_process_is_taken_over_by_only_one(make_lease):
    dead, other, late = make_lease(), make_lease(), make_lease()
    assert dead.acquire()
    watch = Watch(lambda second: second == lease.EXPIRY and other.acquire())
    assert not make_lease(watch).acquire()
    assert watch.now == lease.EXPIRY
    assert other.renew()
    assert not dead.renew()
    dead.release()  # changes nothing
    assert other.renew()
    assert late.acquire()  # after its own clock's EXPIRY without a renewal
    assert not other.renew()


def test_lease_that_is_released_while_another_process_watches(make_lease):
    first = make_lease()
    assert first.acquire()
    watch = Watch(lambda second: second == 4 and first.release())
    assert make_lease(watch).acquire()
    assert watch.now == 4


def test_write_whose_answer_was_lost_is_recognized(make_lease, monkeypatch):
    first = make_lease()
    assert first.acquire()
    before = first._blob
    assert first.renew()
    first._blob = before
    assert first.renew()


@pytest.mark.parametrize("outage", [MAX_RENEWAL_AGE - WRITE_INTERVAL, 200])
def test_lease_is_given_up_before_it_expires(outage, make_lease):
    """A process that cannot reach the bucket ends before another may take over its lease."""
    first, watch = make_lease(), Watch()
    assert first.acquire()

    class Unreachable:
        def renew(self):
            watch.sleep(lease.REQUEST_TIMEOUT)
            if WRITE_INTERVAL < watch.now < WRITE_INTERVAL + outage:
                raise OSError("unreachable")
            return first.renew()

    def released(seconds):
        watch.sleep(seconds)
        return watch.now > 300

    kept = lease.keep_renewing(Unreachable(), released, watch.time)
    assert kept == (outage < MAX_RENEWAL_AGE)
    assert kept or watch.now < lease.EXPIRY


def test_bucket_lock_is_held_for_others_until_it_is_released(lease_file, bucket):
    lock = lease.BucketLock(lease_file)
    other_file = lease_file.parent / "1-of-2.lock"
    other = lease.BucketLock(other_file)
    assert lock.acquire()
    assert not lock.is_held_elsewhere(other_file)
    assert other.acquire()
    assert lock.is_held_elsewhere(other_file)
    assert other.is_held_elsewhere(lease_file)
    lock._lease._blob._properties["updated"] = "2999-01-01T00:00:00.000Z"  # the other has expired
    assert not lock.is_held_elsewhere(other_file)
    other.release()
    lock.release()
    assert not lease_file.exists()


def test_bucket_without_access_is_one_message(bucket, monkeypatch):
    monkeypatch.setattr(lease, "REQUEST_TIMEOUT", 0.1)
    with pytest.raises(UserError, match=r"no-bucket/.*the bucket cannot be accessed"):
        lease.Lease(parse_path("gs://no-bucket/run/heartbeats/0-of-1.lock")).acquire()


def test_missing_packages_are_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    argv = ["--config", config_path("detector", ""), "--workdir", "gs://b/r"]
    assert exit_code(lambda: train_main(argv)) == 2
    assert "pip install 'tinyjax[bucket]'" in capsys.readouterr().err
