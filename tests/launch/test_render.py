"""What engines in a cloud are given, against their own published schemas, and gcloud's script run
with a gcloud that is none.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from launch import gcloud, jobset, skypilot
from launch import job as jobs
from tinyjax.errors import UserError
from tinyjax.run import accelerators

ROOT = Path(__file__).parents[2]


def job(
    accelerator="v5litepod-8",
    shards=3,
    workdir="gs://bucket/sweeps/Widths_1",
    more=("--config.seed=3",),
):
    return jobs.job("configs/sweeps/hit_uav.py:steps=9", more, workdir, shards, accelerator)


# ---- the worker's command


def test_a_worker_meets_the_others_of_its_slice_and_expects_them():
    found = jobs.shell(jobs.worker(job(), "$SHARD"))
    assert found == (
        "python -m tinyjax.train --config configs/sweeps/hit_uav.py:steps=9 --workdir "
        "gs://bucket/sweeps/Widths_1 --shard $SHARD/3 --expect tpu:8 --processes auto "
        "--config.seed=3"
    )
    assert jobs.worker(job("v6e-1"), 2)[7:11] == ["--shard", "2/3", "--expect", "tpu:1"]
    assert jobs.worker(job("gpu"), 0)[-2:] == ["gpu:1", "--config.seed=3"]


def test_names_are_what_clouds_take():
    here, there = (job(workdir=f"gs://{bucket}/sweeps/1_Widths").name for bucket in "ab")
    assert re.fullmatch(r"tj-1-widths-[0-9a-f]{6}", here)
    assert here != there


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"shards": 0}, "--shards 0"),
        ({"accelerator": "v6e-9"}, "v6e-9: did you mean 'v6e-8'"),
        ({"more": ["--dryrun"]}, "--dryrun: is no option of launch or of its workers"),
    ],
)
def test_jobs_that_are_none(changes, match):
    with pytest.raises(UserError, match=match):
        job(**changes)


# ---- JobSet


def jobset_of(**given):
    return yaml.safe_load(jobset.render(job(), {"image": "i", **given}).files["jobset.yaml"])


def strict(tree):
    """A JobSet as the published types read it; what they do not know does not come back."""
    from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

    return JobsetV1alpha2JobSet.from_dict(tree).to_dict()


def test_a_jobset_is_one():
    found = jobset_of(queue="q", namespace="n")
    assert strict(found) == found
    (shard,) = found["spec"]["replicatedJobs"]
    own = shard["template"]["spec"]
    assert (shard["replicas"], own["parallelizm"], own["completions"]) == (3, 2, 2)
    pod = own["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "2x4"
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}
    assert found["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "q"}


def test_the_check_is_strict():
    found = jobset_of()
    found["spec"]["replicatedJobs"][0]["template"]["spec"]["backofLimit"] = 0
    assert strict(found) != found
    found = jobset_of()
    del found["spec"]["failurePolicy"]["rules"][0]["name"]
    assert strict(found) != found


@pytest.mark.parametrize("code", [1, 2, 69, 75, 134, 137, 139, 143])
def test_what_becomes_of_a_shard_by_its_code(code):
    """The message is Kubernetes' own of a pod failure policy."""
    message = (
        f"Container worker for pod default/w-shard-0-0 failed with exit code {code} matching "
        "FailJob rule at index 1"
    )
    assert _action(message) == (
        "FailJobSet" if code in (1, 2)
        else "RestartJobAndIgnoreMaxRestarts" if code in (75, 143)
        else "RestartJob"
    )  # fmt: skip


def test_a_pod_that_was_evicted():
    message = "Pod default/w-0 has condition DisruptionTarget matching FailJob rule at index 0"
    assert _action(message) == "RestartJobAndIgnoreMaxRestarts"


def _action(message):
    """Rules are evaluated in their order; a pattern matches anywhere."""
    for rule in jobset_of()["spec"]["failurePolicy"]["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [""])
        if any(re.search(pattern, message) for pattern in patterns):
            return rule["action"]
    return None


# ---- SkyPilot


@pytest.fixture
def sky(tmp_path, monkeypatch):
    """It writes into one's home as soon as it is imported."""
    monkeypatch.setenv("HOME", str(tmp_path))
    import sky

    return sky


@pytest.mark.parametrize("pool", ["", "p"])
def test_tasks_of_skypilot_are_valid(sky, pool):
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


def test_the_check_of_skypilot_is_strict(sky):
    tree = yaml.safe_load(skypilot.render(job(), {}).files["task.yaml"])
    tree["resources"]["acelerators"] = "tpu-v5litepod-8"
    with pytest.raises(ValueError, match="accelerators"):
        sky.Task.from_yaml_config(tree)


def test_every_job_of_skypilot_is_a_shard():
    alone, pool = (skypilot.render(job(), {"pool": pool}) for pool in ("", "p"))
    assert [c[c.index("--env") + 1] for c in alone.commands] == ["SHARD=0", "SHARD=1", "SHARD=2"]
    assert "--shard $SHARD/3" in alone.files["task.yaml"]
    assert pool.commands[1][-3:-1] == ["--num-jobs", "3"]
    assert "--shard $SKYPILOT_JOB_RANK/3" in pool.files["task.yaml"]


# ---- gcloud


FAKE = """#!/usr/bin/env bash
# Notes what it is asked, and answers as {codes} says, a word each time that it runs something.
echo "$@" >> {folder}/asked
case "$*" in
  *describe*) echo "${{STATE:-ACTIVE}}" ;;
  *"tpu-vm ssh"*train*)
    read -r code rest < {folder}/codes; echo "$rest" > {folder}/codes; exit "$code" ;;
esac
"""


def ran(tmp_path, codes, script="shard-1.sh"):
    """A script of three shards, run, and what gcloud was asked."""
    fake = tmp_path / "gcloud"
    fake.write_text(FAKE.format(folder=tmp_path, codes=tmp_path / "codes"))
    fake.chmod(0o755)
    (tmp_path / "codes").write_text(codes)
    given = {"zone": "us-west4-a", "project": "p", "source": "https://example.org/tinyjax"}
    text = gcloud.render(job(), given).files[script]
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PAUSE": "0"}
    done = subprocess.run(["bash", "-c", text], env=env, capture_output=True, text=True)
    return done, (tmp_path / "asked").read_text().splitlines()


def steps(asked):
    return [re.search(r"create|describe|ssh|delete", line)[0] for line in asked]


def test_a_slice_is_asked_for_used_and_given_back(tmp_path):
    done, asked = ran(tmp_path, "0")
    assert done.returncode == 0, done.stderr
    assert steps(asked) == ["delete", "create", "describe", "ssh", "ssh", "delete"]
    assert "--accelerator-type v5litepod-8" in asked[1]
    assert "--spot" in asked[1]
    assert "--shard 1/3 --expect tpu:8 --processes auto" in asked[4]
    assert "--worker=all" in asked[4]


def test_a_slice_that_is_lost_is_asked_for_anew(tmp_path):
    done, asked = ran(tmp_path, "255 75 0")
    assert done.returncode == 0, done.stderr
    assert steps(asked).count("create") == 3
    assert steps(asked)[-1] == "delete"


def test_a_mistake_ends_a_script_and_leaves_nothing(tmp_path):
    done, asked = ran(tmp_path, "2")
    assert done.returncode == 2
    assert re.search("tj-widths-1-[0-9a-f]{6}-1 ended with 2", done.stderr)
    assert steps(asked)[-1] == "delete"


def test_leftovers_are_given_back(tmp_path):
    done, asked = ran(tmp_path, "", "clean.sh")
    assert done.returncode == 0, done.stderr
    names = [line.split("delete ")[1].split()[0] for line in asked]
    assert names == [f"{job().name}-{shard}" for shard in range(3)]
    assert all("--force" in line for line in asked)


def test_all_scripts_are_run_and_one_that_failed_is_told(tmp_path):
    given = {"zone": "us-west4-a", "project": "p", "source": "https://example.org/tinyjax"}
    rendered = gcloud.render(job(), given)
    for name in rendered.files:
        text = rendered.files["all.sh"] if name == "all.sh" else f"exit {7 * ('1' in name)}"
        (tmp_path / name).write_text(text)
    assert subprocess.run(["bash", tmp_path / "all.sh"]).returncode == 7


def test_scripts_that_are_told_to_stop_give_back_what_they_hold(tmp_path):
    """While gcloud waits for its machines, which it would do for hours."""
    fake = tmp_path / "gcloud"
    fake.write_text(
        f'#!/usr/bin/env bash\necho "$@" >> {tmp_path}/asked\n'
        'case "$*" in *describe*) echo ACTIVE ;; *"tpu-vm ssh"*) exec sleep 60 ;; esac\n'
    )
    fake.chmod(0o755)
    given = {"zone": "us-west4-a", "project": "p", "source": "https://example.org/tinyjax"}
    for name, text in gcloud.render(job(shards=2), given).files.items():
        (tmp_path / name).write_text(text)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PAUSE": "0"}
    running = subprocess.Popen(["bash", tmp_path / "all.sh"], env=env)
    asked = tmp_path / "asked"
    while not asked.exists() or asked.read_text().count("tpu-vm ssh") < 2:
        time.sleep(0.05)
    running.terminate()
    assert running.wait(20) == 75
    assert steps(asked.read_text().splitlines())[-2:] == ["delete", "delete"]


# ---- all of them


@pytest.mark.parametrize("engine", ["skypilot", "jobset", "gcloud"])
def test_what_is_no_slice_or_parameter(engine):
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
def test_a_program_that_is_missing(engine, tmp_path):
    given = {
        "jobset": ["--set", "image=i"],
        "gcloud": ["--set", "zone=z", "--set", "project=p", "--set", "source=s"],
    }
    argv = ["--engine", engine, "--config", "c.py", "--workdir", "gs://b/x", "--shards", "2"]
    command = [
        sys.executable,
        "-m",
        "launch",
        *argv,
        "--accelerator",
        "v6e-1",
        *given.get(engine, []),
    ]
    env = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    program = {"skypilot": "sky", "jobset": "kubectl", "gcloud": "gcloud"}[engine]
    assert done.returncode == 2
    assert f"{program} is not installed" in done.stderr


def test_every_slice_has_a_name_for_every_engine():
    for name in accelerators.SLICES:
        jobset.render(job(name), {"image": "i"})
        skypilot.render(job(name), {})
