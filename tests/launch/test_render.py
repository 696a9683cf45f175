"""The files of the cloud engines, checked against published schemas, and gcloud's scripts, run with
a fake gcloud.
"""

import os
import re
import subprocess
import sys
import time

import pytest
import yaml

from launch import gcloud, jobset, skypilot
from launch import job as jobs
from launch.__main__ import main
from tinyjax.errors import UserError, exit_code
from tinyjax.run import accelerators


def job(
    accelerator="v5litepod-8",
    shards=3,
    workdir="gs://bucket/sweeps/Widths_1",
    overrides=("--config.seed=3",),
):
    return jobs.make_job(
        "configs/sweeps/hit_uav.py:steps=9", overrides, workdir, shards, accelerator
    )


# ---- the worker's command


def test_worker_command():
    command = jobs.shell_line(jobs.worker_command(job(), "$SHARD"))
    assert command == (
        "python -m tinyjax.train --config configs/sweeps/hit_uav.py:steps=9 --workdir "
        "gs://bucket/sweeps/Widths_1 --shard $SHARD/3 --expect tpu:8 --processes auto "
        "--config.seed=3"
    )
    assert jobs.worker_command(job("v6e-1"), 2)[7:11] == ["--shard", "2/3", "--expect", "tpu:1"]
    assert jobs.worker_command(job("gpu"), 0)[-2:] == ["gpu:1", "--config.seed=3"]


def test_job_names_are_valid_and_unique():
    first, second = (job(workdir=f"gs://{bucket}/sweeps/1_Widths").name for bucket in "ab")
    assert re.fullmatch(r"tj-1-widths-[0-9a-f]{6}", first)
    assert first != second


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"shards": 0}, "--shards 0"),
        ({"accelerator": "v6e-9"}, "v6e-9: did you mean 'v6e-8'"),
        ({"overrides": ["--dryrun"]}, "--dryrun: neither launch nor its workers have this option"),
    ],
)
def test_invalid_jobs(changes, match):
    with pytest.raises(UserError, match=match):
        job(**changes)


# ---- JobSet


def jobset_of(**parameters):
    return yaml.safe_load(jobset.render(job(), {"image": "i", **parameters}).files["jobset.yaml"])


def strict(tree):
    """Return a JobSet as the published types read it, which drops unknown fields."""
    from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

    return JobsetV1alpha2JobSet.from_dict(tree).to_dict()


def test_jobset_is_valid():
    manifest = jobset_of(queue="q", namespace="n")
    assert strict(manifest) == manifest
    (shard,) = manifest["spec"]["replicatedJobs"]
    spec = shard["template"]["spec"]
    assert (shard["replicas"], spec["parallelism"], spec["completions"]) == (3, 2, 2)
    pod = spec["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "2x4"
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}
    assert manifest["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "q"}


def test_check_of_jobsets_is_strict():
    manifest = jobset_of()
    manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["backofLimit"] = 0
    assert strict(manifest) != manifest
    manifest = jobset_of()
    del manifest["spec"]["failurePolicy"]["rules"][0]["name"]
    assert strict(manifest) != manifest


@pytest.mark.parametrize("code", [1, 2, 69, 75, 134, 137, 139, 143])
def test_action_for_an_exit_code(code):
    """The message is that of a pod failure policy in Kubernetes."""
    message = (
        f"Container worker for pod default/w-shard-0-0 failed with exit code {code} matching "
        "FailJob rule at index 1"
    )
    assert _action(message) == (
        "FailJobSet" if code in (1, 2)
        else "RestartJobAndIgnoreMaxRestarts" if code in (75, 143)
        else "RestartJob"
    )  # fmt: skip


def test_action_for_an_evicted_pod():
    message = "Pod default/w-0 has condition DisruptionTarget matching FailJob rule at index 0"
    assert _action(message) == "RestartJobAndIgnoreMaxRestarts"


def _action(message):
    """Return the action for a message: rules apply in order, a pattern matches anywhere."""
    for rule in jobset_of()["spec"]["failurePolicy"]["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [""])
        if any(re.search(pattern, message) for pattern in patterns):
            return rule["action"]
    return None


# ---- SkyPilot


@pytest.fixture
def sky(tmp_path, monkeypatch):
    """The package; its import writes to the home folder, and its errors limit tracebacks."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "tracebacklimit", 1000, raising=False)  # restores it after the test
    import sky

    return sky


@pytest.mark.parametrize("pool", ["", "p"])
def test_skypilot_tasks_are_valid(sky, pool):
    rendered = skypilot.render(job(), {"pool": pool, "region": "us-west4", "max_hourly_cost": 12})
    assert set(rendered.files) == ({"task.yaml", "pool.yaml"} if pool else {"task.yaml"})
    for text in rendered.files.values():
        task = sky.Task.from_yaml_config(yaml.safe_load(text))
        (resources,) = task.resources
        assert resources.use_spot
        assert resources.accelerators == {"tpu-v5litepod-8": 1}
        assert resources.accelerator_args == {"runtime_version": "v2-alpha-tpuv5-lite"}
        assert resources.job_recovery["recover_on_exit_codes"] == [75]
        assert resources.job_recovery["max_restarts_on_errors"] == 20
        assert resources.max_hourly_cost == 12


def test_check_of_skypilot_tasks_is_strict(sky):
    tree = yaml.safe_load(skypilot.render(job(), {}).files["task.yaml"])
    tree["resources"]["acelerators"] = "tpu-v5litepod-8"
    with pytest.raises(ValueError, match="accelerators"):
        sky.Task.from_yaml_config(tree)


def test_skypilot_launches_a_job_per_shard():
    single, pool = (skypilot.render(job(), {"pool": pool}) for pool in ("", "p"))
    assert [c[c.index("--env") + 1] for c in single.commands] == ["SHARD=0", "SHARD=1", "SHARD=2"]
    assert "--shard $SHARD/3" in single.files["task.yaml"]
    assert pool.commands[1][-3:-1] == ["--num-jobs", "3"]
    assert "--shard $SKYPILOT_JOB_RANK/3" in pool.files["task.yaml"]


# ---- gcloud


FAKE = """#!/usr/bin/env bash
# Records its arguments; each time it runs the worker it exits with the next word of {codes}.
echo "$@" >> {folder}/calls
case "$*" in
  *describe*) echo "${{STATE:-ACTIVE}}" ;;
  *"tpu-vm ssh"*train*)
    read -r code rest < {folder}/codes; echo "$rest" > {folder}/codes; exit "$code" ;;
esac
"""


def run_script(tmp_path, codes, script="shard-1.sh"):
    """Run a script of a job with three shards and return the calls of gcloud."""
    fake = tmp_path / "gcloud"
    fake.write_text(FAKE.format(folder=tmp_path, codes=tmp_path / "codes"))
    fake.chmod(0o755)
    (tmp_path / "codes").write_text(codes)
    parameters = {"zone": "us-west4-a", "project": "p", "source": "https://example.org/tinyjax"}
    text = gcloud.render(job(), parameters).files[script]
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PAUSE": "0"}
    done = subprocess.run(["bash", "-c", text], env=env, capture_output=True, text=True)
    return done, (tmp_path / "calls").read_text().splitlines()


def steps(calls):
    return [re.search(r"create|describe|ssh|delete", line)[0] for line in calls]


def test_script_creates_uses_and_deletes_a_slice(tmp_path):
    done, calls = run_script(tmp_path, "0")
    assert done.returncode == 0, done.stderr
    assert steps(calls) == ["delete", "create", "describe", "ssh", "ssh", "delete"]
    assert "--accelerator-type v5litepod-8" in calls[1]
    assert "--spot" in calls[1]
    assert "--shard 1/3 --expect tpu:8 --processes auto" in calls[4]
    assert "--worker=all" in calls[4]


def test_script_creates_a_new_slice_after_a_loss(tmp_path):
    done, calls = run_script(tmp_path, "255 75 0")
    assert done.returncode == 0, done.stderr
    assert steps(calls).count("create") == 3
    assert steps(calls)[-1] == "delete"


def test_invalid_input_ends_a_script_and_deletes_its_slice(tmp_path):
    done, calls = run_script(tmp_path, "2")
    assert done.returncode == 2
    assert re.search("tj-widths-1-[0-9a-f]{6}-1 ended with exit code 2", done.stderr)
    assert steps(calls)[-1] == "delete"


def test_clean_script_deletes_all_slices(tmp_path):
    done, calls = run_script(tmp_path, "", "clean.sh")
    assert done.returncode == 0, done.stderr
    names = [line.split("delete ")[1].split()[0] for line in calls]
    assert names == [f"{job().name}-{shard}" for shard in range(3)]
    assert all("--force" in line for line in calls)


def test_script_of_all_shards_returns_a_failure(tmp_path):
    parameters = {"zone": "us-west4-a", "project": "p", "source": "https://example.org/tinyjax"}
    rendered = gcloud.render(job(), parameters)
    for name in rendered.files:
        text = rendered.files["all.sh"] if name == "all.sh" else f"exit {7 * ('1' in name)}"
        (tmp_path / name).write_text(text)
    assert subprocess.run(["bash", tmp_path / "all.sh"]).returncode == 7


def test_stopped_scripts_delete_their_slices(tmp_path):
    """Also while gcloud waits for the machines, which may take hours."""
    fake = tmp_path / "gcloud"
    fake.write_text(
        f'#!/usr/bin/env bash\necho "$@" >> {tmp_path}/calls\n'
        'case "$*" in *describe*) echo ACTIVE ;; *"tpu-vm ssh"*) exec sleep 60 ;; esac\n'
    )
    fake.chmod(0o755)
    parameters = {"zone": "us-west4-a", "project": "p", "source": "https://example.org/tinyjax"}
    for name, text in gcloud.render(job(shards=2), parameters).files.items():
        (tmp_path / name).write_text(text)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PAUSE": "0"}
    running = subprocess.Popen(["bash", tmp_path / "all.sh"], env=env)
    calls = tmp_path / "calls"
    while not calls.exists() or calls.read_text().count("tpu-vm ssh") < 2:
        time.sleep(0.05)
    running.terminate()
    assert running.wait(20) == 75
    assert steps(calls.read_text().splitlines())[-2:] == ["delete", "delete"]


# ---- all of them


@pytest.mark.parametrize("engine", ["skypilot", "jobset", "gcloud"])
def test_invalid_accelerators_and_parameters(engine):
    module = {"skypilot": skypilot, "jobset": jobset, "gcloud": gcloud}[engine]
    needed = {"image": "i"} if engine == "jobset" else {}
    if engine == "gcloud":
        needed = {"zone": "z", "project": "p", "source": "s"}
    with pytest.raises(UserError, match="is on this machine's disk"):
        module.render(job(workdir="runs/x"), needed)
    with pytest.raises(UserError, match="is for TPU slices"):
        module.render(job("gpu"), needed)
    with pytest.raises(UserError, match="--set regoin"):
        module.render(job(), {**needed, "regoin": "x"})
    for key in needed:
        with pytest.raises(UserError, match=f"--set {key}=..: must be given"):
            module.render(job(), {k: v for k, v in needed.items() if k != key})


@pytest.mark.parametrize("engine", ["skypilot", "jobset", "gcloud"])
def test_missing_program_is_an_error(engine, tmp_path, monkeypatch, capsys):
    parameters = {
        "jobset": ["--set", "image=i"],
        "gcloud": ["--set", "zone=z", "--set", "project=p", "--set", "source=s"],
    }
    argv = ["--engine", engine, "--config", "c.py", "--workdir", "gs://b/x", "--shards", "2"]
    argv += ["--accelerator", "v6e-1", *parameters.get(engine, [])]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert exit_code(lambda: main(argv)) == 2
    program = {"skypilot": "sky", "jobset": "kubectl", "gcloud": "gcloud"}[engine]
    assert f"{program} is not installed" in capsys.readouterr().err


def test_every_slice_is_rendered():
    for name in accelerators.SLICES:
        jobset.render(job(name), {"image": "i"})
        skypilot.render(job(name), {})
