"""Measure what clients of the endpoint see of hot swaps, and of killed replicas, proxies and jobs.

    python -m benchmarks.serving_faults                            # some five minutes on 2 cores
    python -m benchmarks.serving_faults --swaps 2 --kills 1 --no-save    # to try it out

Eight clients send one row at a time over connections that they keep, and repeat a request that
failed once. Every answer is compared with what the version that it names has to say. Kills are
SIGKILL, of a process that serves, while all replicas are up.
"""

from __future__ import annotations

import argparse
import csv
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.contenders import environment
from benchmarks.report import Row
from benchmarks.serving import COLUMNS, JSON, free_port, make_champion
from mlops.tracking.models import registry
from mlops.tracking.store.store import Store, open_store

CLIENTS = 8
REPLICAS = 2
PATIENCE = 120.0  # seconds for what takes some
MARK = "MLOPS_BENCHMARK"
REPLICA = r"^ray::ServeReplica"
PROXY = r"^\S+/haproxy -db "


class Job:
    """The endpoint's job, with all that it starts."""

    def __init__(self, folder: Path, uri: str, port: int) -> None:
        self.port = port
        self.mark = uuid.uuid4().hex
        command = [sys.executable, "-m", "ray_jobs.serve", "--port", str(port)]
        command += ["--replicas", str(REPLICAS), "--poll_seconds", "0.5"]
        with (folder / "serve.log").open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={**environment(), "MLFLOW_TRACKING_URI": uri, MARK: self.mark},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def pids(self, command: str = "") -> list[int]:
        """Find the job's living processes by their command line."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    ours = f"{MARK}={self.mark}".encode() in (entry / "environ").read_bytes()
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if ours and line and re.search(command, line):
                        found.append(int(entry.name))
        return sorted(found)

    def whole(self) -> bool:
        """Whether the proxy knows of all replicas."""
        return sum(map(_replicas_up, self.sockets())) >= REPLICAS

    def sockets(self) -> list[Path]:
        return list(Path(tempfile.gettempdir()).glob("mlops-*/*/admin.sock"))

    def ask(self, body: bytes) -> dict[str, Any]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            return ask(connection, body)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def _replicas_up(path: Path) -> int:
    answer = b""
    with closing(socket.socket(socket.AF_UNIX)) as connection, suppress(OSError):
        connection.settimeout(2)
        connection.connect(str(path))
        connection.sendall(b"show stat\n")
        while part := connection.recv(65_536):
            answer += part
    servers = csv.DictReader(answer.decode().removeprefix("# ").splitlines())
    return sum(
        it["act"] == "1" and it["status"].startswith("UP") and "REPLICA" in it["svname"]
        for it in servers
    )


def ask(connection: http.client.HTTPConnection, body: bytes) -> dict[str, Any]:
    connection.request("POST", "/predict", body, {"Content-Type": JSON})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise OSError(f"{answer.status} {content[:80]!r}")
    return dict(json.loads(content))


class Load:
    """Clients that ask on and on; `with` starts and ends them.

    Attributes:
        answered: When each answer came.
        last: The versions of the last answers.
        wrong: Answers that are not what the version they name has to say.
        failed: Requests that failed.
        failed_twice: Requests whose repetition failed too.
    """

    def __init__(self, job: Job, body: bytes, expected: dict[int, Any]) -> None:
        self.job, self.body, self.expected = job, body, expected
        self.answered: list[float] = []
        self.last: deque[int] = deque(maxlen=200)
        self.wrong, self.failed, self.failed_twice = 0, 0, 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        connection = self._connect()
        while not self._stop.is_set():
            try:
                self._once(connection)
            except (OSError, http.client.HTTPException):
                self.failed += 1
                connection.close()
                connection = self._connect()
                try:
                    self._once(connection)
                except (OSError, http.client.HTTPException):
                    self.failed_twice += 1
                    connection.close()
                    connection = self._connect()
                    self._stop.wait(0.05)

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.job.port, timeout=30)

    def _once(self, connection: http.client.HTTPConnection) -> None:
        content = ask(connection, self.body)
        version = content["model"]["version"]
        self.wrong += content["predictions"] != self.expected[version]
        self.last.append(version)
        self.answered.append(time.monotonic())

    def gap(self, since: float) -> float:
        """The longest time without an answer."""
        times = [since, *(moment for moment in sorted(self.answered) if moment > since)]
        return max((b - a for a, b in pairwise(times)), default=0.0)


def main() -> None:
    args = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        uri = f"sqlite:///{folder}/mlflow.db"
        make_champion(folder)
        make_champion(folder, "--seed", "1")
        store = open_store(uri)
        body = json.dumps({"rows": [dict.fromkeys(COLUMNS, 0.5)]}).encode()
        with serving(folder, uri, free_port()) as job:
            expected = {version: answer_of(job, store, version, body) for version in (2, 1)}
            assert expected[1] != expected[2]
            swaps = measure_swaps(job, store, args.swaps, body, expected)
            replicas = [kill(job, REPLICA, body, expected) for _ in range(args.kills)]
            proxies = [kill(job, PROXY, body, expected) for _ in range(args.proxies)]
        restart = measure_restart(folder, uri)
    details = {"swaps": swaps, "replicas": replicas, "proxies": proxies, "restart": restart}
    found = rows(swaps, replicas, proxies, restart)
    report.finish("serving_faults", "The endpoint under faults", found, details, not args.no_save)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--swaps", type=int, default=20)
    parser.add_argument("--kills", type=int, default=10, help="of replicas")
    parser.add_argument("--proxies", type=int, default=3, help="kills of the proxy")
    parser.add_argument("--no-save", action="store_true")
    return parser.parse_args()


@contextmanager
def serving(folder: Path, uri: str, port: int) -> Iterator[Job]:
    job = Job(folder, uri, port)
    try:
        wait(lambda: job.process.poll() is not None or job.whole(), "the endpoint")
        if job.process.poll() is not None:
            raise SystemExit((folder / "serve.log").read_text()[-3000:])
        yield job
        job.stop()
    finally:
        for pid in job.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def wait(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not come about in {seconds:g} s")
        time.sleep(0.05)


def answer_of(job: Job, store: Store, version: int, body: bytes) -> Any:
    """What a version has to say, once all replicas serve it."""
    registry.move_alias(store, registry.MODEL, registry.CHAMPION, version)
    in_a_row = 0
    while in_a_row < 100:
        answer = job.ask(body)
        in_a_row = in_a_row + 1 if answer["model"]["version"] == version else 0
    return answer["predictions"]


def measure_swaps(
    job: Job, store: Store, times: int, body: bytes, expected: dict[int, Any]
) -> dict[str, Any]:
    with Load(job, body, expected) as load:
        for swap in range(times):
            version = 2 - swap % 2
            registry.move_alias(store, registry.MODEL, registry.CHAMPION, version)
            load.last.clear()
            wait(
                lambda version=version: Counter(load.last)[version] == load.last.maxlen,
                f"swap {swap}",
            )
    return summary(load) | {"swaps": times}


def kill(job: Job, process: str, body: bytes, expected: dict[int, Any]) -> dict[str, Any]:
    """Kill a process under load, and see the endpoint whole again."""
    wait(job.whole, "the endpoint whole")
    time.sleep(1)
    with Load(job, body, expected) as load:
        time.sleep(1)
        victim = job.pids(process)[-1]
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        time.sleep(2)
        # The proxy's successor knows its replicas at once.
        wait(lambda: job.whole() and answers_again(load, killed), "the endpoint whole again")
        time.sleep(1)
    done = summary(load) | {"outage": round(load.gap(killed), 2)}
    print(done, file=sys.stderr, flush=True)
    return done


def answers_again(load: Load, killed: float) -> bool:
    before = len(load.answered)
    time.sleep(0.5)
    return len(load.answered) > before + 50 and load.answered[-1] > killed


def summary(load: Load) -> dict[str, Any]:
    return {
        "requests": len(load.answered),
        "failed": load.failed,
        "failed_twice": load.failed_twice,
        "wrong": load.wrong,
    }


def measure_restart(folder: Path, uri: str) -> dict[str, float]:
    """Kill the job itself: how long it holds its port, and until another one serves there."""
    port = free_port()
    with serving(folder, uri, port) as job:
        job.process.kill()
        job.process.wait()
        killed = time.monotonic()
        wait(lambda: can_listen(port), "the port's release")
        free = time.monotonic() - killed
        with serving(folder, uri, port) as second:
            second.ask(json.dumps({"rows": [dict.fromkeys(COLUMNS, 0.5)]}).encode())
            return {
                "port_free": round(free, 2),
                "serving_again": round(time.monotonic() - killed, 2),
            }


def can_listen(port: int) -> bool:
    with closing(socket.socket()) as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        probe.listen()
        return True
    return False


def rows(
    swaps: dict[str, Any],
    replicas: list[dict[str, Any]],
    proxies: list[dict[str, Any]],
    restart: dict[str, float],
) -> list[Row]:
    lost = swaps["failed"] + swaps["wrong"]
    failed = [kill["failed"] for kill in replicas]
    twice = sum(kill["failed_twice"] for kill in replicas)
    outage = max((kill["outage"] for kill in proxies), default=0.0)
    return [
        Row(
            f"failed requests, or answers of mixed versions, over {swaps['swaps']} swaps",
            "0",
            f"{lost} of {swaps['requests']:,}",
            lost == 0,
        ),
        Row(
            f"failed requests over {len(replicas)} kills of one of {REPLICAS} replicas",
            "<= 1 a kill",
            f"{sum(failed)}, at most {max(failed, default=0)} a kill",
            max(failed, default=0) <= 1,
        ),
        Row("the same, with one retry", "0", str(twice), twice == 0),
        Row(
            f"outage when the proxy is killed, worst of {len(proxies)}",
            "<= 10 s",
            f"{outage:.1f} s",
            outage <= 10,
        ),
        Row("port held after the job is killed", "-", f"{restart['port_free']:.1f} s"),
        Row("until another job serves there", "-", f"{restart['serving_again']:.1f} s"),
    ]


if __name__ == "__main__":
    main()
