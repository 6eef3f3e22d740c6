"""How a process is known again: by machine, number and when it was started."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil


def this_process() -> dict[str, Any]:
    """Returns what tells this process from all others."""
    process = psutil.Process()
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": process.pid,
        "started": _started(process),
    }


def _started(process: psutil.Process) -> float:
    """When a process was started, in whatever unit: the same for the same process."""
    try:
        # Clock ticks since the boot. psutil makes a time of them, by a clock that may be set.
        stat = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8", errors="replace")
        return float(stat.rpartition(")")[2].split()[19])
    except OSError:
        return float(process.create_time())


def _machine() -> str:
    """Names the processes among which a process id means one: boot and pid namespace."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts += [boot.read_text().strip(), str(namespace.readlink())]
    return " ".join(parts)


def is_alive(holder: dict[str, Any]) -> bool:
    """Tells whether a process of this machine is still there."""
    try:
        process = psutil.Process(holder["pid"])
        running = process.status() != psutil.STATUS_ZOMBIE
        return running and abs(_started(process) - holder["started"]) < 1.0
    except psutil.NoSuchProcess:
        return False
