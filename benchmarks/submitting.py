"""What does sending a study to a cluster cost? The same study sent as a Ray job and run directly.

    python -m benchmarks.submitting
    python -m benchmarks.submitting --repeats 1 --no-save

The cluster is one of this machine alone, made by `ray start --head`. Directly means that the
study's driver is started here and connects to it; `ray job submit` and the job's own `--address
http://...` send it there, where Ray unpacks the folder and starts the driver. Whole processes, in
turns; the record is an SQLite file.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from benchmarks import report
from benchmarks.contenders import REPOSITORY, SEED_TASK, environment
from benchmarks.report import Row

MOST_SECONDS = 10.0
BIN = Path(sys.executable).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    job = ["-m", "ray_jobs.tune", "--config", str(SEED_TASK), "--max_evals", str(args.trials)]
    with tempfile.TemporaryDirectory(prefix="submitting-") as folder, head(Path(folder)) as cluster:
        gcs, server = cluster
        submit = ["ray", "job", "submit", "--address", server, "--working-dir", str(REPOSITORY)]
        commands = {
            "directly": [sys.executable, *job, "--address", gcs],
            "ray job submit": [str(BIN / submit[0]), *submit[1:], "--", "python", *job],
            "--address http": [sys.executable, *job, "--address", server],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(args.repeats + 1):
            for number, (name, command) in enumerate(commands.items()):
                place = Path(folder) / f"study-{turn}-{number}"
                place.mkdir()
                took = timed(command, place)
                # The first turn uploads the folder and brings files into memory.
                if turn > 0:
                    seconds[name].append(took)
    rows = []
    for name in list(commands)[1:]:
        pairs = zip(seconds[name], seconds["directly"], strict=True)
        added = median(sent - run for sent, run in pairs)
        measured = f"{added:+.1f} s ({median(seconds[name]):.1f} against "
        measured += f"{median(seconds['directly']):.1f})"
        measure = f"time that `{name}` adds to a study of {args.trials} trials"
        rows.append(Row(measure, f"<= {MOST_SECONDS:g} s", measured, added <= MOST_SECONDS))
    details = {"seconds": seconds}
    report.finish("submitting", "Sending a study to a cluster", rows, details, not args.no_save)


def timed(command: Sequence[str], folder: Path) -> float:
    """Run a study in a folder and time it."""
    variables = {**environment(), "RAY_AUTH_MODE": "disabled", "HOME": str(folder)}
    variables["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    started = time.monotonic()
    done = subprocess.run(command, env=variables, cwd=folder, capture_output=True, text=True)
    took = time.monotonic() - started
    if done.returncode:
        sys.stderr.write((done.stdout + done.stderr)[-4000:])
        raise SystemExit(f"{' '.join(command)} ended with exit status {done.returncode}")
    return took


@contextmanager
def head(folder: Path) -> Iterator[tuple[str, str]]:
    """Start a cluster; yields its address and that of its job server."""
    gcs, dashboard, agent = ports(3)
    words = [str(BIN / "ray"), "start", "--head", "--block", "--port", str(gcs), "--num-cpus"]
    words += [str(os.cpu_count()), "--dashboard-host", "127.0.0.1", "--dashboard-port"]
    words += [str(dashboard), "--dashboard-agent-listen-port", str(agent)]
    words += ["--node-ip-address", "127.0.0.1", "--temp-dir", str(folder / "ray")]
    variables = {**environment(), "RAY_AUTH_MODE": "disabled"}
    with subprocess.Popen(words, env=variables, stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(f"http://127.0.0.1:{dashboard}/api/version")
            yield f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}"
        finally:
            process.terminate()
            process.wait(60)


def wait_for(url: str, seconds: float = 60.0) -> None:
    """Wait until something answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def ports(count: int) -> list[int]:
    """Find free ports."""
    with ExitStack() as stack:
        made = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in made:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in made]


if __name__ == "__main__":
    main()
