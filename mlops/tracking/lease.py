"""Who drives a study: one process at a time, by a tag of the study's run.

The driver renews the tag every few seconds. Another one takes a study over when the process that
holds it is gone, which can be seen on the same machine, or has let its tag be for some time. No
clocks are compared. MLflow cannot set a tag on condition, so a driver reads what it has written,
and each renewal first looks whether the study is still its own.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from mlops.errors import InputError, RecordError
from mlops.tracking.store import Store, explained

TAG = "driver"
RENEWAL_SECONDS = 10.0
SILENCE_SECONDS = 30.0
SETTLING_SECONDS = 0.3
# A renewal of so long ago, well before another driver takes over, is no proof any more.
SURE_SECONDS = 15.0


class Lease:
    """A study held by this process; a thread renews it.

    Args:
        store: Where the run is.
        run_id: The study's run.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self._store, self._run_id = store, run_id
        self._mine = {"id": uuid.uuid4().hex, **_this_process()}
        self._count = 0
        self._seen = 0.0
        self._lost: str | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def take(self, study: str) -> Lease:
        """Takes the study, waiting for a driver elsewhere to show whether it lives.

        Raises:
            InputError: Another driver has it.
            TrackingError: The store cannot be asked.
        """
        with explained(self._store):
            holder = self._other()
            if holder is not None and self._lives(holder, study):
                raise _taken(study, holder)
            asked = time.monotonic()
            self._write()
            # Who was slow to write may have written over another driver, which must notice first.
            slow = time.monotonic() - asked > SETTLING_SECONDS
            time.sleep(RENEWAL_SECONDS + 1 if slow else SETTLING_SECONDS)
            holder = self._other()
            if holder is not None:
                raise _taken(study, holder)
        self._seen = time.monotonic()
        self._thread.start()
        return self

    def hold(self) -> None:
        """Stops a driver whose study another one has taken, as the store knows it.

        Raises:
            RecordError: So it is.
            Exception: The store cannot be asked, and the last answer is of long ago.
        """
        if self._lost is None and time.monotonic() - self._seen > SURE_SECONDS:
            self._look()
        self.check()

    def check(self) -> None:
        """Stops a driver whose study another one has taken, as far as is known.

        Raises:
            RecordError: So it is.
        """
        if self._lost is not None:
            raise RecordError(
                f"a study must have one driver, got another one on {self._lost}, which has taken "
                "it over; this one stops"
            )

    def release(self) -> None:
        """Lets the study go."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()
        # The store may be gone; another driver will see that this process is.
        with suppress(Exception):
            self._look()
            if self._lost is None:
                self._store.client.delete_tag(self._run_id, TAG)

    def _lives(self, holder: dict[str, Any], study: str) -> bool:
        if holder["machine"] == self._mine["machine"]:
            return _is_alive(holder)
        waited = f"waiting {SILENCE_SECONDS:g} s to see whether the driver of {study} on "
        print(f"{waited}{holder['host']} is still there", file=sys.stderr, flush=True)
        deadline = time.monotonic() + SILENCE_SECONDS
        while time.monotonic() < deadline:
            time.sleep(1.0)
            now = self._read()
            if now is None:
                return False
            if now != holder:
                return True
        return False

    def _renew(self) -> None:
        while not self._ending.wait(RENEWAL_SECONDS):
            # A store that is down keeps others out too.
            with suppress(Exception):
                self._look()
                if self._lost is not None:
                    return
                self._write()

    def _look(self) -> None:
        """Asks whether the study is still this process's."""
        asked, holder = time.monotonic(), self._read()
        if holder is None:  # another driver has come and gone
            self._lost = "another machine"
        elif holder["id"] != self._mine["id"]:
            self._lost = holder["host"]
        else:
            self._seen = asked

    def _other(self) -> dict[str, Any] | None:
        """Reads who else holds the study."""
        holder = self._read()
        return None if holder is None or holder["id"] == self._mine["id"] else holder

    def _read(self) -> dict[str, Any] | None:
        tags = self._store.client.get_run(self._run_id).data.tags
        return json.loads(tags[TAG]) if TAG in tags else None

    def _write(self) -> None:
        self._count += 1
        tag = json.dumps({**self._mine, "renewed": self._count})
        self._store.client.set_tag(self._run_id, TAG, tag)


def _taken(study: str, holder: dict[str, Any]) -> InputError:
    return InputError(
        f"study: `{study}` must have one driver at a time, got one already, process "
        f"{holder['pid']} on {holder['host']}; stop it first, or give this study another --study"
    )


def _this_process() -> dict[str, Any]:
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


def _is_alive(holder: dict[str, Any]) -> bool:
    try:
        process = psutil.Process(holder["pid"])
        running = process.status() != psutil.STATUS_ZOMBIE
        return running and abs(_started(process) - holder["started"]) < 1.0
    except psutil.NoSuchProcess:
        return False
