"""What one process at a time may do, by a tag: drive a study, choose a model's champion.

The holder renews the tag every few seconds. Another one takes it over when the process that holds
it is gone, which can be seen on the same machine, or has let its tag be for some time. No clocks
are compared. MLflow cannot set a tag on condition, so a holder reads what it has written, and each
renewal first looks whether the tag is still its own.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import uuid
from contextlib import suppress
from typing import Any, Protocol

from mlops.errors import InputError, RecordError
from mlops.tracking.store.processes import is_alive, this_process
from mlops.tracking.store.store import Registry, Store, explained

RENEWAL_SECONDS = 10.0
SILENCE_SECONDS = 30.0
SETTLING_SECONDS = 0.3
# A renewal of so long ago, well before another driver takes over, is no proof any more.
SURE_SECONDS = 15.0
# What this process holds; of others of its own it could not remove the tag.
_held: set[str] = set()


class Tag(Protocol):
    """The tag that says who holds something, and how to speak of it.

    Attributes:
        store: Where it is.
        rule: What must be so.
        remedy: What to do about another holder.
        holder: Who it is.
        taken_over: What happens to one who stood still.
    """

    rule: str
    remedy: str
    holder: str
    taken_over: str

    @property
    def store(self) -> Registry: ...

    def read(self) -> str | None:
        """Returns its value; None where there is none."""

    def write(self, value: str) -> None:
        """Sets it."""

    def remove(self) -> None:
        """Removes it."""


class DriverTag:
    """Of a study's run: the process that drives the study."""

    name = "driver"
    remedy = "stop it first, or give this study another --study"
    taken_over = "a study must have one driver, got another one on {}; this one stops"

    def __init__(self, store: Store, run_id: str, study: str) -> None:
        self.store, self._run_id = store, run_id
        self.rule = f"study: `{study}` must have one driver at a time"
        self.holder = f"the driver of {study}"

    def read(self) -> str | None:
        tags: dict[str, str] = self.store.client.get_run(self._run_id).data.tags
        return tags.get(self.name)

    def write(self, value: str) -> None:
        self.store.client.set_tag(self._run_id, self.name, value)

    def remove(self) -> None:
        self.store.client.delete_tag(self._run_id, self.name)


class PromoterTag:
    """Of a registered model: the process that is about to choose its champion."""

    name = "promoter"
    remedy = "wait for it, or stop it"
    taken_over = "a champion must be chosen by one at a time, got another one on {}; choose again"

    def __init__(self, store: Registry, model: str) -> None:
        self.store, self._model = store, model
        self.rule = f"model: the champion of `{model}` must be chosen by one at a time"
        self.holder = f"who chooses the champion of {model}"

    def read(self) -> str | None:
        tags: dict[str, str] = self.store.models.get_registered_model(self._model).tags
        return tags.get(self.name)

    def write(self, value: str) -> None:
        self.store.models.set_registered_model_tag(self._model, self.name, value)

    def remove(self) -> None:
        self.store.models.delete_registered_model_tag(self._model, self.name)


class Lease:
    """Something held by this process; a thread renews it.

    Args:
        tag: The tag that says so.
    """

    def __init__(self, tag: Tag) -> None:
        self._tag = tag
        self._mine = {"id": uuid.uuid4().hex, **this_process()}
        self._count = 0
        self._seen = 0.0
        self._lost: str | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def wait(self, seconds: float) -> Lease:
        """Takes it as soon as others, who have it for a moment, have let it go.

        Raises:
            InputError: Another one still has it after so many seconds.
            TrackingError: The store cannot be asked.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.take()
            except InputError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(SETTLING_SECONDS)

    def take(self) -> Lease:
        """Takes it, waiting for a holder elsewhere to show whether it lives.

        Raises:
            InputError: Another one has it.
            TrackingError: The store cannot be asked.
        """
        _held.add(self._mine["id"])
        try:
            with explained(self._tag.store):
                self._take()
        except BaseException:
            _held.discard(self._mine["id"])
            raise
        self._seen = time.monotonic()
        self._thread.start()
        return self

    def _take(self) -> None:
        holder = self._other()
        if holder is not None and self._lives(holder):
            raise self._taken(holder)
        asked = time.monotonic()
        try:
            self._write()
        except Exception:
            # A database refuses the slower of two who set a tag that was not there.
            if (holder := self._other()) is None:
                raise
            raise self._taken(holder) from None
        # Who was slow to write may have written over another one, which must notice first.
        slow = time.monotonic() - asked > SETTLING_SECONDS
        time.sleep(RENEWAL_SECONDS + 1 if slow else SETTLING_SECONDS)
        holder = self._other()
        if holder is not None:
            raise self._taken(holder)

    def hold(self) -> None:
        """Stops a process from which another one has taken it, as the store knows it.

        Raises:
            RecordError: So it is.
            Exception: The store cannot be asked, and the last answer is of long ago.
        """
        if self._lost is None and time.monotonic() - self._seen > SURE_SECONDS:
            self._look()
        self.check()

    def check(self) -> None:
        """Stops a process from which another one has taken it, as far as is known.

        Raises:
            RecordError: So it is.
        """
        if self._lost is not None:
            raise RecordError(self._tag.taken_over.format(f"{self._lost}, which has taken it over"))

    def release(self) -> None:
        """Lets it go."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()
        # The store may be gone; another one will see that this process is.
        with suppress(Exception):
            self._look()
            if self._lost is None:
                self._tag.remove()
        _held.discard(self._mine["id"])

    def _lives(self, holder: dict[str, Any]) -> bool:
        if holder["machine"] == self._mine["machine"]:
            own = (holder["pid"], holder["started"]) == (self._mine["pid"], self._mine["started"])
            return holder["id"] in _held if own else is_alive(holder)
        waited = f"waiting {SILENCE_SECONDS:g} s to see whether {self._tag.holder} on "
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
        """Asks whether it is still this process's."""
        asked, holder = time.monotonic(), self._read()
        if holder is None:  # another one has come and gone
            self._lost = "another machine"
        elif holder["id"] != self._mine["id"]:
            self._lost = holder["host"]
        else:
            self._seen = asked

    def _other(self) -> dict[str, Any] | None:
        """Reads who else holds it."""
        holder = self._read()
        return None if holder is None or holder["id"] == self._mine["id"] else holder

    def _read(self) -> dict[str, Any] | None:
        value = self._tag.read()
        return None if value is None else json.loads(value)

    def _write(self) -> None:
        self._count += 1
        self._tag.write(json.dumps({**self._mine, "renewed": self._count}))

    def _taken(self, holder: dict[str, Any]) -> InputError:
        return InputError(
            f"{self._tag.rule}, got one already, process {holder['pid']} on {holder['host']}; "
            f"{self._tag.remedy}"
        )
