"""Jobs on a Ray cluster with a token: sent there, stopped, let in or not, left without workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from clusters import BIN, ROOT, Cluster, base_environment, with_token
from servers import RayHead, free_port, ray_head, ray_node

from mlops.tracking.store.store import Store, open_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SMALL = ["--max_evals", "2", "--epochs", "2"]


def tune(environment: dict[str, str], *flags: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "ray_jobs.tune", *flags]
    return subprocess.run(words, env=environment, capture_output=True, text=True)


def statuses(study: str) -> list[str]:
    store = open_store()
    runs = store.client.search_runs([store.experiment_id], f"tags.study = '{study}'")
    return sorted(run.info.status for run in runs)


def test_make_submit(cluster: Cluster) -> None:
    uri = {"MLFLOW_TRACKING_URI": open_store().uri}
    words = ["make", "--silent", "-C", ROOT, "submit", f"BIN={BIN}", f"ADDRESS={cluster.server}"]
    words += [f"ARGS={' '.join(SMALL)} --study submitted", "-o", "setup"]
    environment = {**cluster.environment, **uri}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2/2 trials" in done.stderr
    (result,) = done.stdout.splitlines()
    assert json.loads(result)["outcomes"] == {"completed": 2}
    assert statuses("submitted") == ["FINISHED"] * 3
    store = open_store()
    runs = store.client.search_runs([store.experiment_id], "tags.study = 'submitted'")
    places = {
        (run.data.tags["node"], run.data.tags["device"]) for run in runs if "trial" in run.data.tags
    }
    assert places == {(os.uname().nodename, "cpu")}


def test_ray_job_submit(cluster: Cluster) -> None:
    """As anybody would; the record is where it stays, not in Ray's copy of the folder."""
    environment = {**cluster.environment, "RAY_AUTH_MODE": "token"}
    words = ["ray", "job", "submit", "--address", cluster.server, "--working-dir", str(ROOT), "--"]
    words += ["python", "-m", "ray_jobs.tune", *SMALL]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2/2 trials" in done.stdout
    home = Path(environment["HOME"])
    assert f"sqlite:///{home}/mlflow.db" in done.stdout
    assert [*home.glob("mlruns/**/weights.safetensors")]


def test_by_ray_client(cluster: Cluster) -> None:
    environment = {**cluster.environment, "MLFLOW_TRACKING_URI": open_store().uri}
    done = tune(environment, "--address", cluster.client, "--study", "by-client", *SMALL)
    assert done.returncode == 0, done.stderr
    assert f" at {cluster.server}\n" in done.stderr  # the job server that Ray Client knows
    assert json.loads(done.stdout)["outcomes"] == {"completed": 2}
    assert statuses("by-client") == ["FINISHED"] * 3


def test_a_job_that_fails_there_fails_here(cluster: Cluster) -> None:
    flags = ["--data.path", "missing.csv", "--data.target", "y"]
    # What is given wins over the environment, though not with Ray's own commands.
    environment = {**cluster.environment, "RAY_ADDRESS": "http://127.0.0.1:1"}
    done = tune(environment, "--address", cluster.server, *flags)
    assert done.returncode == 2
    assert "missing.csv" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("must end well, got exit status 2, see above")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_second_ctrl_c_stops_a_study_there(cluster: Cluster) -> None:
    flags = ["--max_evals", "4000", "--epochs", "40", "--pack_size", "4", "--study", "stopped"]
    words = [sys.executable, "-m", "ray_jobs.tune", "--address", cluster.server, *flags]
    environment = {**cluster.environment, "MLFLOW_TRACKING_URI": open_store().uri}
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "best" in line:
                break
        process.send_signal(signal.SIGINT)
        assert any("Ctrl-C again stops it" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130, rest
    assert "stopping the job" in rest
    assert "to go on: python -m ray_jobs.tune" in rest
    assert "Traceback" not in rest
    assert "RUNNING" not in statuses("stopped")


def test_who_has_not_the_token_is_not_let_in(cluster: Cluster, tmp_path: Path) -> None:
    """With a wrong one or none, by each way: all at once, as Ray takes its time to say no."""
    outsiders = {"wrong": with_token(tmp_path, "other"), "none": base_environment(tmp_path)}
    words = [sys.executable, "-m", "ray_jobs.tune", *SMALL, "--address"]
    started = {
        (address, token): subprocess.Popen(
            [*words, address], env=environment, stderr=subprocess.PIPE, text=True
        )
        for address in (cluster.server, cluster.client, cluster.head.address)
        for token, environment in outsiders.items()
    }
    said = {which: process.communicate()[1] for which, process in started.items()}
    for which, process in started.items():
        assert process.returncode == 2, (which, said[which])
        last = said[which].splitlines()[-1]
        assert last.startswith("error: address: must be that of a "), which
        assert "~/.ray/auth_token" in last, which
        assert "Traceback" not in said[which], which


def test_a_driver_here_and_workers_there(cluster: Cluster, tmp_path: Path) -> None:
    environment = {**cluster.environment, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    done = tune(environment, "--address", cluster.head.address, *SMALL)
    assert done.returncode == 0, done.stderr
    assert f"connecting to Ray at {cluster.head.address}" in done.stderr


def test_a_study_without_workers_stops_and_goes_on(tmp_path: Path) -> None:
    """Of a head without cores and one machine that is switched off."""
    environment = with_token(tmp_path, "token") | {"RAY_AUTH_MODE": "token"}
    store = f"sqlite:///{tmp_path}/mlflow.db"
    with ray_head(environment, cpus=0) as head:
        flags = ["--address", head.address, "--max_evals", "40", "--epochs", "100"]
        flags += ["--pack_size", "4", "--study", "alone", "--no_worker_timeout", "25"]
        flags += ["--tracking.uri", store, "--storage", str(tmp_path / "studies")]
        joining = ["--address", head.address, "--num-cpus", "1"]
        joining += ["--dashboard-agent-listen-port", str(free_port())]
        with ray_node(environment, *joining) as node:
            wait_for_cores(environment, head)
            words = [sys.executable, "-m", "ray_jobs.tune", *flags]
            with subprocess.Popen(
                words, env=environment, stderr=subprocess.PIPE, text=True
            ) as driver:
                assert driver.stderr is not None
                rest = ""
                for line in driver.stderr:
                    rest += line
                    if "best" in line:
                        break
                switch_off(node)
                rest += driver.stderr.read()
            assert driver.returncode == 1, rest
            assert "there must be a worker, got none for 25 s; resume it" in rest
            assert "to go on: python -m ray_jobs.tune" in rest
            assert "Traceback" not in rest
        with ray_node(environment, *joining):
            wait_for_cores(environment, head)
            done = tune(environment, *flags, "--resume")
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["outcomes"] == {"completed": 40}
    store_of_study: Store = open_store(store)
    runs: list[Any] = store_of_study.client.search_runs([store_of_study.experiment_id])
    assert sorted(run.info.status for run in runs) == ["FINISHED"] * 41


def wait_for_cores(environment: dict[str, str], head: RayHead) -> None:
    code = (
        "import ray, sys, time\n"
        "ray.init(sys.argv[1], log_to_driver=False)\n"
        "while not ray.cluster_resources().get('CPU'): time.sleep(0.2)\n"
    )
    words = [sys.executable, "-c", code, head.address]
    subprocess.run(words, env=environment, check=True, capture_output=True, timeout=60)


def switch_off(node: subprocess.Popen[bytes]) -> None:
    """Kills a node's processes, all at once."""
    for process in psutil.Process(node.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    time.sleep(0.1)
