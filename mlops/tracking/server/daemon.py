"""Programs that serve beside a job: they end with it, also when it is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from mlops.errors import InputError

# A new database takes ten seconds of migrations, more on a busy machine.
START_SECONDS = 180.0
STOP_SECONDS = 30.0


@dataclass(frozen=True)
class Daemon:
    """A program that this process has started.

    Attributes:
        name: For messages.
        process: Its process.
        log: What it writes.
        deadline: When it must be ready, by `time.monotonic`.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    deadline: float = field(default_factory=lambda: time.monotonic() + START_SECONDS)

    def wait(self) -> None:
        """Waits a moment for it to be ready.

        Raises:
            InputError: It has ended, or time is over.
        """
        if self.process.poll() is None and time.monotonic() < self.deadline:
            time.sleep(0.2)
            return
        text = self.log.read_text(encoding="utf-8", errors="replace").strip()
        last = (text.splitlines() or ["nothing"])[-1]
        raise InputError(f"{self.name} must start, got: {last[:300]}; see {self.log}")


@contextmanager
def running(
    name: str,
    command: list[str],
    log: Path,
    how_to_end: signal.Signals,
    environment: Mapping[str, str],
    folder: str | Path = "/",
) -> Iterator[Daemon]:
    """Runs a program in a session of its own; it ends with the block, and with this process.

    Args:
        name: For messages.
        command: Its command line.
        log: Where it writes.
        how_to_end: What it takes for being told to end.
        environment: Its environment.
        folder: Where it runs.
    """
    if shutil.which("setpriv"):
        # One that is to become another user is told so by the same program, which comes first.
        become, rest = (command[1:4], command[4:]) if command[0] == "setpriv" else ([], command)
        command = ["setpriv", *become, f"--pdeathsig={how_to_end.name[3:]}", *rest]
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        yield Daemon(name, process, log)
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(how_to_end)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
