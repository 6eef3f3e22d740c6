"""A study on three hosts, from another one: `ray up`, a job, hosts lost, `ray down`."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hosts import Host, hosts

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# Each host takes itself for the whole machine.
SHARE = "--num-cpus=1 --memory=2000000000 --object-store-memory=100000000"
TUNNEL = "ssh -o StrictHostKeyChecking=no -N -L 8265:127.0.0.1:8265 head"


@dataclass
class Cluster:
    """The hosts, a laptop from which they are used among them."""

    laptop: Host
    head: Host
    first: Host
    second: Host

    def on_laptop(self, command: str, timeout: float = 300) -> str:
        """Runs a command there, which must succeed."""
        done = self.laptop.run(f"cd ~/mlops && export PATH={BIN}:$PATH && {command}", timeout)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def configuration(text: str, hosts: dict[str, Host]) -> str:
    """The cluster.yaml of these hosts: its addresses, its user, and no network to install from."""
    for told, own in {
        "192.0.2.10": hosts["head"].address,
        "192.0.2.11": hosts["first"].address,
        "192.0.2.12": hosts["second"].address,
        "ssh_user: ubuntu": "ssh_user: root",
        "python3 -m venv .venv && .venv/bin/pip install --quiet -c constraints.txt -e .": (
            f"ln -sfn {sys.prefix} .venv"
        ),
        "ray start --head": f"ray start --head {SHARE}",
        "ray start --address": f"ray start {SHARE} --address",
    }.items():
        assert told in text
        text = text.replace(told, own)
    return text


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with hosts("laptop", "head", "first", "second") as made:
        cluster = Cluster(*made.values())
        home = cluster.laptop.home
        copy = f"rsync -a --exclude .venv --exclude .git {ROOT}/ ~/mlops/"
        assert cluster.laptop.run(copy).returncode == 0
        yaml = home / "mlops" / "cluster.yaml"
        yaml.write_text(configuration(yaml.read_text(), made))
        cluster.on_laptop("ray get-auth-token --generate > /dev/null")
        cluster.on_laptop("ray up --yes --no-config-cache cluster.yaml")
        logs = tmp_path_factory.mktemp("cluster")
        server = cluster.head.start(
            f"mkdir tracking && cd tracking && {BIN}/python -m mlflow server --host head "
            "--port 5000 --workers 1 --backend-store-uri sqlite:///mlflow.db --allowed-hosts '*'",
            logs / "server",
        )
        tunnel = cluster.laptop.start(TUNNEL, logs / "tunnel")
        try:
            wait_for_nodes(cluster, 3)
            yield cluster
        finally:
            server.send_signal(signal.SIGTERM)
            tunnel.send_signal(signal.SIGTERM)


def nodes(cluster: Cluster) -> int:
    """How many nodes live."""
    done = cluster.head.run(
        f"RAY_AUTH_MODE=token {BIN}/ray list nodes --format json --address 127.0.0.1:8265"
        " --filter state=ALIVE"
    )
    return len(json.loads(done.stdout)) if done.returncode == 0 else 0


def wait_for_nodes(cluster: Cluster, number: int, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while (found := nodes(cluster)) != number:
        assert time.monotonic() < deadline, f"{found} nodes instead of {number}"
        time.sleep(1)


def test_a_study_survives_the_loss_of_two_of_three_hosts(cluster: Cluster, tmp_path: Path) -> None:
    flags = "--max_evals 60 --epochs 300 --pack_size 4 --resources.workers 3 --study lost"
    study = (
        f"cd ~/mlops && PATH={BIN}:$PATH MLFLOW_TRACKING_URI=http://head:5000 "
        f"python -m ray_jobs.tune --address http://127.0.0.1:8265 {flags}"
    )
    log = tmp_path / "study"
    driver = cluster.laptop.start(study, log)
    deadline = time.monotonic() + 200
    while "best" not in log.read_text():
        assert driver.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    cluster.first.power_off()
    cluster.second.cut_off()
    lost = time.monotonic()
    wait_for_nodes(cluster, 1, 90)
    noticed = time.monotonic() - lost
    assert driver.wait(300) == 0, log.read_text()
    result = json.loads(log.read_text().splitlines()[-1])
    assert result["outcomes"] == {"completed": 60}, noticed

    asked = (
        "import json, mlflow; client = mlflow.MlflowClient('http://head:5000'); "
        "[e] = [e for e in client.search_experiments() if e.name != 'Default']; "
        "runs = client.search_runs([e.experiment_id], max_results=1000); "
        "print(json.dumps([[r.info.status, r.data.tags.get('trial'), r.data.tags.get('node')]"
        " for r in runs]))"
    )
    runs = json.loads(cluster.on_laptop(f'python -W ignore -c "{asked}"').splitlines()[-1])
    assert Counter(status for status, _, _ in runs) == {"FINISHED": 61}
    assert Counter(trial for _, trial, _ in runs if trial) == {str(n): 1 for n in range(60)}
    assert len({node for _, _, node in runs if node}) > 1


def test_down_leaves_nothing(cluster: Cluster) -> None:
    cluster.on_laptop("ray down --yes cluster.yaml")
    deadline = time.monotonic() + 60
    while "ray" in (left := cluster.head.run("ps -eo args | grep -v grep | grep /ray/").stdout):
        assert time.monotonic() < deadline, left
        time.sleep(1)
