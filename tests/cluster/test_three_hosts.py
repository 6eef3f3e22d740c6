"""`cluster.yaml` on three hosts, as docs/cluster.md tells; two of them are lost in mid-study.

The file is used as it is but for the addresses and the user, and two things: hosts get the
interpreter that runs this, as an installation takes minutes, and are told what size they are.

What took how long is printed: `pytest -m cluster -rP tests/cluster`.
"""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from hosts import LAPTOP, REPOSITORY, Host, hosts, missing

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

HEAD, WORKERS = "head", ["worker-1", "worker-2"]
# All hosts are on this machine, and each would take all of it.
SIZE = "--num-cpus=1 --memory=2000000000 --object-store-memory=200000000"
TRIALS, EPOCHS = 60, 100
STUDY = f"--study three-hosts --max_evals {TRIALS} --epochs {EPOCHS} --pack_size 6 "
STUDY += "--resources.workers 3 --data.synthetic.n_samples 20000"
# With so many trials ended all hosts have had some.
ENOUGH = 10
# A host that was cut off counts as lost by then.
NOTICED_SECONDS = 45
# How the laptop's user enters commands, and how the head's.
HERE = f". {sys.prefix}/bin/activate && cd {REPOSITORY} &&"
THERE = "cd mlops && . .venv/bin/activate && export RAY_AUTH_MODE=token PYTHONPATH=.:tests &&"
STORE = f"{THERE} python tests/cluster/head_store.py"
SERVER = "http://127.0.0.1:8265"
PIPE = subprocess.PIPE


@dataclass(frozen=True)
class Cluster:
    """What `ray up` makes of the hosts, and an MLflow server on its head."""

    hosts: dict[str, Host]
    store: str

    @property
    def head(self) -> Host:
        return self.hosts[HEAD]

    @property
    def workers(self) -> list[Host]:
        return [self.hosts[name] for name in WORKERS]

    @property
    def laptop(self) -> Host:
        return self.hosts[LAPTOP]

    def tune(self, flags: str, **variables: str) -> AbstractContextManager[subprocess.Popen[str]]:
        """A study, sent there from the laptop."""
        given = {"MLFLOW_TRACKING_URI": self.store, **variables}
        setting = " ".join(f"{name}={value}" for name, value in given.items())
        command = f"{HERE} {setting} python -m ray_jobs.tune --address {SERVER} {flags}"
        return self.laptop.start(command, stdout=PIPE, stderr=PIPE)

    def on_record(self, study: str) -> dict[str, Any]:
        """What the MLflow server has of a study (see head_store.py)."""
        answer = self.head.run(f"{STORE} study {self.store} {study}")
        found: dict[str, Any] = json.loads(answer.splitlines()[-1])
        return found


def configuration(made: dict[str, Host]) -> dict[str, Any]:
    """Returns `cluster.yaml`, filled in."""
    config: dict[str, Any] = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text())
    config["provider"]["head_ip"] = made[HEAD].address
    config["provider"]["worker_ips"] = [made[name].address for name in WORKERS]
    config["auth"]["ssh_user"] = "root"
    for commands, what, instead in (
        ("setup_commands", r".*pip install.*", f"ln -sfn {sys.prefix} ~/mlops/.venv"),
        ("head_start_ray_commands", "ray start", f"ray start {SIZE}"),
        ("worker_start_ray_commands", "ray start", f"ray start {SIZE}"),
    ):
        changed = [re.subn(what, instead, command) for command in config[commands]]
        assert sum(count for _, count in changed) == 1
        config[commands] = [command for command, _ in changed]
    return config


def wait_until(done: Callable[[], object], seconds: float) -> float:
    """Returns how long it took."""
    started = time.monotonic()
    while not done():
        assert time.monotonic() - started < seconds
        time.sleep(0.5)
    return time.monotonic() - started


def active_nodes(head: Host) -> int:
    status = head.run(f"{THERE} ray status")
    active = status.partition("Active:")[2].partition("Pending:")[0]
    return sum(int(count) for count in re.findall(r"^ *(\d+) ", active, re.MULTILINE))


def has_dashboard(host: Host, address: str) -> bool:
    """Tells whether a host reaches one there."""
    command = f"</dev/tcp/{address}/8265"
    with host.start(command, stderr=subprocess.DEVNULL) as asked:
        return asked.wait(10) == 0


def of_ray(host: Host) -> list[str]:
    """Returns the command lines of Ray's processes."""
    lines = [" ".join(words) for words in host.processes()]
    return [line for line in lines if re.search(r"\bray::|/site-packages/ray/|ray_jobs", line)]


def has_a_pack(host: Host) -> bool:
    return any(re.match(r"ray::\S+\.train", line) for line in of_ray(host))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if reason := missing():
        pytest.skip(reason)
    with hosts([HEAD, *WORKERS], tmp_path_factory.mktemp("keys")) as made:
        laptop, head = made[LAPTOP], made[HEAD]
        laptop.write("~/cluster.yaml", yaml.safe_dump(configuration(made)))
        laptop.run(f"{HERE} ray get-auth-token --generate")
        started = time.monotonic()
        laptop.run(f"{HERE} ray up --yes ~/cluster.yaml", timeout=200)
        print(f"ray up took {time.monotonic() - started:.0f} s;", end=" ")
        wait_until(lambda: active_nodes(head) == 3, 120)
        print(f"all hosts were there after {time.monotonic() - started:.0f} s")
        with head.start(f"{STORE} serve", stdin=PIPE, stdout=PIPE) as store:
            assert store.stdout is not None
            uri = store.stdout.readline().strip()
            if not uri:
                pytest.skip("the head has no PostgreSQL")
            yield Cluster(made, uri)


@pytest.fixture(scope="module")
def tunnel(cluster: Cluster) -> Iterator[None]:
    with cluster.laptop.start(f"{HERE} ray dashboard ~/cluster.yaml"):
        wait_until(lambda: has_dashboard(cluster.laptop, "127.0.0.1"), 60)
        yield


def test_who_may_use_the_cluster(cluster: Cluster) -> None:
    for host in (cluster.head, *cluster.workers):
        assert host.path("~/.ray/auth_token").stat().st_mode & 0o777 == 0o600
    assert has_dashboard(cluster.head, "127.0.0.1")
    for host in (cluster.laptop, *cluster.workers):
        assert not has_dashboard(host, cluster.head.address)


def test_who_has_another_token_is_not_let_in(cluster: Cluster, tunnel: None) -> None:
    cluster.laptop.write("~/another", secrets.token_hex(32))
    with cluster.tune("--max_evals 1", RAY_AUTH_TOKEN_PATH="~/another") as driver:
        said = driver.communicate(timeout=100)[1]
    assert driver.returncode == 2, said
    assert said.splitlines()[-1].startswith("error: address: must be that of a job server")
    assert "Traceback" not in said


def test_a_folder_that_hosts_do_not_share_is_found_before_training(
    cluster: Cluster, tunnel: None
) -> None:
    with cluster.tune("--study apart --checkpoint_every 30 --storage /tmp/studies") as driver:
        said = driver.communicate(timeout=100)[1]
    assert driver.returncode == 2, said
    (why,) = [line for line in said.splitlines() if line.startswith("error: storage: ")]
    assert "must be a folder that all machines share, got /tmp/studies/" in why
    for host in cluster.workers:
        assert f"{host.name} ({host.address}) does not: what is written here is not there" in why
    assert f"{HEAD} (" not in why
    assert "Traceback" not in said
    assert cluster.on_record("apart")["trials"] == []


def test_a_study_loses_two_hosts_and_is_whole(cluster: Cluster, tunnel: None) -> None:
    """One is switched off and one is cut off, which is back before the study ends."""
    off, cut = cluster.workers
    lost_at, noticed, again, said = 0.0, {}, {}, ""
    with cluster.tune(STUDY) as driver:
        assert driver.stderr is not None and driver.stdout is not None
        for line in driver.stderr:
            said += line
            progress = re.match(r"(\d+)/\d+ trials", line)
            enough = progress and int(progress[1]) >= ENOUGH
            if not lost_at and enough and has_a_pack(off) and has_a_pack(cut):
                off.power_off()
                cut.cut_off()
                lost_at = time.monotonic()
            since = time.monotonic() - lost_at
            if found := re.match(r"pack (\d+) is (to be )?started again", line):
                print(f"{since:.0f} s after the loss: {line.strip()[:120]}")
                (noticed if found[2] else again)[found[1]] = since
            if lost_at and since > NOTICED_SECONDS:
                cut.reconnect()
        result = json.loads(driver.stdout.read())
    print(f"{active_nodes(cluster.head)} hosts were there in the end")
    assert driver.wait() == 0, said
    assert lost_at, said
    assert len(noticed) == 2, said
    # It may have to wait for the host that is left.
    assert again.keys() == noticed.keys()
    assert result["outcomes"] == {"completed": TRIALS}
    record = cluster.on_record("three-hosts")
    assert record["statuses"] == {"FINISHED": 1 + TRIALS}
    trials = record["trials"]
    assert sorted(int(trial["trial"]) for trial in trials) == [*range(TRIALS)]
    for trial in trials:
        for metric, steps in trial["steps"].items():
            assert sorted(steps) == [*range(1, EPOCHS + 1)], (trial["trial"], metric)
    assert {trial["node"] for trial in trials} == {HEAD, *WORKERS}
    assert record["versions"] == 1


def test_ray_down_ends_all(cluster: Cluster) -> None:
    """The last test: there is no cluster then."""
    assert of_ray(cluster.head)
    cluster.laptop.run(f"{HERE} ray down --yes ~/cluster.yaml", timeout=100)
    assert of_ray(cluster.head) == []
    seconds = wait_until(lambda: not any(of_ray(host) for host in cluster.workers), 300)
    print(f"the workers had ended {seconds:.0f} s later")
