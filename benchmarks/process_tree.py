"""Run a command cold and measure its whole process tree: wall time, CPU time, memory.

Ray's daemons leave the family of the process that started them, and some outlive it. On Linux this
process declares itself a "subreaper" (prctl(2)): every orphan below it becomes its child instead of
init's. So the tree is complete, and `wait4` returns the CPU time of every process in it.

Memory is the sum of PSS (/proc/PID/smaps_rollup): a page shared by n processes counts 1/n in each,
hence once in all, the object store included.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PR_SET_CHILD_SUBREAPER = 36
LEFTOVER_LIMIT = 60.0  # seconds a daemon may live on after the command before it is killed


@dataclass(frozen=True)
class Measurement:
    """What one run of a command took; times in seconds, sizes in bytes."""

    exit_code: int
    wall: float  # from start to the exit of the command itself: what a user waits for
    until_gone: float  # until the last process of its tree was gone
    cpu: float  # user and system time of the whole tree
    peak_pss: int
    peak_names: dict[str, int] = field(default_factory=dict)  # PSS by process name at the peak
    n_killed: int = 0  # processes that outlived the command by LEFTOVER_LIMIT
    result: dict[str, Any] | None = None  # the JSON object on the last line of stdout

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    command: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    *,
    timeout: float = 3600.0,
    pss_interval: float = 1.0,
    pss_share: float = 0.02,
) -> Measurement:
    """Run `command` in `directory`; its output goes to `stdout.txt` and `stderr.txt` there.

    Args:
        pss_interval: Seconds between two samples of memory, at least.
        pss_share: Sampling pauses until it has taken at most this share of the time, so that it
            does not slow what it measures.

    Raises:
        TimeoutError: The command was still running after `timeout`; its tree has been killed.
    """
    become_subreaper()
    sampler = PssSampler(pss_interval, pss_share)
    with (directory / "stdout.txt").open("wb") as out, (directory / "stderr.txt").open("wb") as err:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
        sampler.start()
        exit_code, wall, cpu = wait_for(process, started, timeout)
        cpu_of_orphans, n_killed = wait_for_orphans(LEFTOVER_LIMIT)
        until_gone = time.perf_counter() - started
    sampler.stop()
    return Measurement(
        exit_code=exit_code,
        wall=wall,
        until_gone=until_gone,
        cpu=cpu + cpu_of_orphans,
        peak_pss=sampler.peak,
        peak_names=sampler.peak_names,
        n_killed=n_killed,
        result=last_json_object(directory / "stdout.txt"),
    )


def become_subreaper() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def wait_for(
    process: subprocess.Popen[bytes], started: float, timeout: float
) -> tuple[int, float, float]:
    """Reap children until `process` is among them; return its exit code, wall and CPU seconds."""
    cpu = 0.0
    while True:
        pid, status, usage = os.wait4(-1, os.WNOHANG)
        if pid == 0:
            if time.perf_counter() - started > timeout:
                kill_descendants()
                wait_for_orphans(0.0)
                raise TimeoutError(f"still running after {timeout:.0f} s: {process.args!r}")
            time.sleep(0.01)
            continue
        cpu += usage.ru_utime + usage.ru_stime
        if pid == process.pid:
            # wait4 took the status, so Popen cannot find it any more: hand it over.
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode, time.perf_counter() - started, cpu


def wait_for_orphans(limit: float) -> tuple[float, int]:
    """Reap what is left of the tree, killing it after `limit` seconds; return its CPU seconds."""
    cpu, n_killed, deadline = 0.0, 0, time.perf_counter() + limit
    while True:
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return cpu, n_killed
        if pid:
            cpu += usage.ru_utime + usage.ru_stime
        elif time.perf_counter() > deadline:
            n_killed += kill_descendants()
            deadline = time.perf_counter() + 5.0
        else:
            time.sleep(0.02)


def kill_descendants() -> int:
    """Kill every process below this one."""
    pids = descendants()
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return len(pids)


def descendants() -> list[int]:
    """List the processes below this one."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:  # it ended meanwhile
            continue
        parent = int(stat.rpartition(")")[2].split()[1])
        children[parent].append(int(entry.name))
    found, queue = [], [os.getpid()]
    while queue:
        below = children[queue.pop()]
        found += below
        queue += below
    return found


def read_pss(pid: int) -> int:
    """Read the proportional set size of a process, 0 when it has ended."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def read_name(pid: int) -> str:
    """Read the short name of a process."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "?"


class PssSampler:
    """A thread that samples the PSS of the tree below this process and keeps the peak."""

    def __init__(self, interval: float, share: float) -> None:
        self.interval, self.share = interval, share
        self.peak = 0
        self.peak_names: dict[str, int] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.is_set():
            started = time.perf_counter()
            sizes = {pid: read_pss(pid) for pid in descendants()}
            if sum(sizes.values()) > self.peak:
                self.peak = sum(sizes.values())
                self.peak_names = by_name(sizes)
            taken = time.perf_counter() - started
            self._done.wait(max(self.interval, taken / self.share))


def by_name(sizes: Mapping[int, int]) -> dict[str, int]:
    """Sum sizes by process name, largest first."""
    totals: dict[str, int] = defaultdict(int)
    for pid, size in sizes.items():
        totals[read_name(pid)] += size
    return dict(sorted(totals.items(), key=lambda item: -item[1]))


def last_json_object(path: Path) -> dict[str, Any] | None:
    """Parse the last line of a file when it is a JSON object."""
    lines = path.read_text(errors="replace").strip().splitlines()
    try:
        value = json.loads(lines[-1]) if lines else None
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
