"""Measure the endpoint against `mlflow models serve` and against a plain FastAPI, by wrk.

    python -m benchmarks.serving                                 # a quarter of an hour on 2 cores
    python -m benchmarks.serving --seconds 2 --rounds 1 --no-save    # to try it out

All serve the champion of one small study. The servers take turns, one at a time, since an idle one
takes processor time too; each round starts them anew and warms them up. Needs wrk on the PATH.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.request import urlopen

import numpy as np
import pyarrow as pa

from benchmarks import report
from benchmarks.contenders import environment
from benchmarks.report import Row

COLUMNS = [f"feature_{i}" for i in range(20)]
MANY = 1000
STARTING_SECONDS = 300.0
JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"


@dataclass(frozen=True)
class Server:
    """A way to serve the champion."""

    name: str
    command: list[str]
    health: str
    path: str
    body: str  # of "split" and "rows"


@dataclass(frozen=True)
class Load:
    """What wrk found."""

    per_second: float
    p50_ms: float
    failed: int


def main() -> None:
    args = parse_arguments()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk must be installed; on Debian `apt-get install wrk`")
    runs: dict[str, dict[str, list[Load]]] = {}
    with tempfile.TemporaryDirectory(prefix="serving-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        make_champion(folder)
        bodies = write_bodies(folder)
        for round_ in range(args.rounds):
            port = free_port()
            servers = make_servers(folder, port, args.replicas)
            shift = round_ % len(servers)
            for server in servers[shift:] + servers[:shift]:
                with running(server, folder, port):
                    for case, load in measure(server, port, bodies, args.seconds).items():
                        runs.setdefault(server.name, {}).setdefault(case, []).append(load)
    details = {
        server: {case: [vars(load) for load in loads] for case, loads in cases.items()}
        for server, cases in runs.items()
    }
    report.finish("serving", "The endpoint", rows(runs), {"runs": details}, save=not args.no_save)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=int, default=10, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--replicas", type=int, default=1, help="of ours")
    parser.add_argument("--no-save", action="store_true")
    return parser.parse_args()


def make_champion(folder: Path, *flags: str) -> None:
    job = [sys.executable, "-m", "ray_jobs.tune", "--max_evals", "4", "--epochs", "10", *flags]
    subprocess.run(job, cwd=folder, env=environment(), check=True, stdout=subprocess.DEVNULL)


def write_bodies(folder: Path) -> dict[str, Path]:
    """Write each body as a script of wrk's: (form, rows) -> file."""
    values = np.random.default_rng(0).normal(size=(MANY, len(COLUMNS))).round(6)
    paths = {}
    for n_rows in (1, MANY):
        chosen = values[:n_rows].tolist()
        forms = {
            "rows": json.dumps({"rows": [dict(zip(COLUMNS, row, strict=True)) for row in chosen]}),
            "split": json.dumps({"dataframe_split": {"columns": COLUMNS, "data": chosen}}),
        }
        for form, body in forms.items():
            paths[f"{form}-{n_rows}"] = write_script(
                folder, f"{form}-{n_rows}", body.encode(), JSON
            )
    table = pa.table(dict(zip(COLUMNS, values.T, strict=True)))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    body = sink.getvalue().to_pybytes()
    paths[f"arrow-{MANY}"] = write_script(folder, "arrow", body, ARROW)
    return paths


def write_script(folder: Path, name: str, body: bytes, media_type: str) -> Path:
    (folder / f"{name}.body").write_bytes(body)
    script = folder / f"{name}.lua"
    script.write_text(
        'wrk.method = "POST"\n'
        f'wrk.headers["Content-Type"] = "{media_type}"\n'
        f'local file = io.open("{folder / f"{name}.body"}", "rb")\n'
        'wrk.body = file:read("*a")\nfile:close()\n'
    )
    return script


def make_servers(folder: Path, port: int, replicas: int) -> list[Server]:
    python, uri = sys.executable, f"sqlite:///{folder}/mlflow.db"
    mlflow = [python, "-m", "mlflow", "models", "serve", "-m", "models:/mlp@champion"]
    mlflow += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    ours = [python, "-m", "ray_jobs.serve", "--port", str(port), "--replicas", str(replicas)]
    plain = [python, "-m", "benchmarks.comparators.plain_endpoint", "--uri", uri]
    return [
        Server("ours", ours, "/ping", "/predict", "rows"),
        Server("mlflow", mlflow, "/ping", "/invocations", "split"),
        Server("plain", [*plain, "--port", str(port)], "/docs", "/predict", "rows"),
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(server: Server, folder: Path, port: int) -> Iterator[None]:
    uri = f"sqlite:///{folder}/mlflow.db"
    print(f"{server.name} ...", file=sys.stderr, flush=True)
    with (folder / f"{server.name}.log").open("wb") as log:
        process = subprocess.Popen(
            server.command,
            cwd=folder,
            env={**environment(), "MLFLOW_TRACKING_URI": uri},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + STARTING_SECONDS
        while not answers(f"http://127.0.0.1:{port}{server.health}"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((folder / f"{server.name}.log").read_text()[-3000:])
            time.sleep(0.5)
        yield
    finally:
        # The job's own end; the others' workers die with their group.
        os.kill(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(url: str) -> bool:
    with suppress(OSError), urlopen(url, timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def measure(server: Server, port: int, bodies: dict[str, Path], seconds: int) -> dict[str, Load]:
    url = f"http://127.0.0.1:{port}{server.path}"
    one, many = bodies[f"{server.body}-1"], bodies[f"{server.body}-{MANY}"]
    wrk(url, one, 8, max(1, seconds // 3))
    loads = {
        "1": wrk(url, one, 1, seconds),
        "32": wrk(url, one, 32, seconds),
        "many": wrk(url, many, 1, seconds),
    }
    if server.name == "ours":
        loads["arrow"] = wrk(url, bodies[f"arrow-{MANY}"], 1, seconds)
    return loads


def wrk(url: str, script: Path, connections: int, seconds: int) -> Load:
    words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "--timeout", "20s"]
    done = subprocess.run(
        [*words, "-s", str(script), url], capture_output=True, text=True, check=True
    )
    text = done.stdout
    value, unit = re.findall(r"50%\s+([\d.]+)(us|ms|s)", text)[0]
    refused = re.findall(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.findall(
        r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text
    )
    return Load(
        per_second=float(re.findall(r"Requests/sec:\s+([\d.]+)", text)[0]),
        p50_ms=float(value) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit],
        failed=sum(map(int, refused)) + sum(int(n) for found in errors for n in found),
    )


def rows(runs: dict[str, dict[str, list[Load]]]) -> list[Row]:
    """Compare medians."""

    def of(server: str, case: str, field: str) -> float:
        return median(getattr(load, field) for load in runs[server][case])

    def faster(measure: str, case: str, other: str, times: float, field: str, scale: int) -> Row:
        own, theirs = of("ours", case, field), of(other, case, field)
        ratio = own / theirs if field == "per_second" else theirs / own
        unit = "/s" if field == "per_second" else " ms"
        shown = f"{ratio:.1f}x ({own * scale:,.3g}{unit} against {theirs * scale:,.3g}{unit})"
        return Row(f"{measure}, against {other}", f">= {times:.2g}x", shown, ratio >= times)

    failed = sum(load.failed for loads in runs["ours"].values() for load in loads)
    arrow = of("ours", "arrow", "per_second") / of("ours", "many", "per_second")
    return [
        faster("requests/s, 32 connections", "32", "mlflow", 10, "per_second", 1),
        faster("requests/s, 32 connections", "32", "plain", 1, "per_second", 1),
        faster("p50 latency, 1 connection", "1", "mlflow", 4, "p50_ms", 1),
        faster("p50 latency, 1 connection", "1", "plain", 1 / 1.5, "p50_ms", 1),
        faster("rows/s, 1,000 rows a request", "many", "mlflow", 5, "per_second", MANY),
        faster("rows/s, 1,000 rows a request", "many", "plain", 0, "per_second", MANY),
        Row("1,000 rows as Arrow, against our JSON", ">= 3x", f"{arrow:.1f}x", arrow >= 3),
        Row("failed requests of ours", "0", str(failed), failed == 0),
    ]


if __name__ == "__main__":
    main()
