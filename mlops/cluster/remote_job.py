"""A job on a Ray cluster, followed from here: shown until it ends, left there, or stopped.

Ray's own way of following a job waits on one connection without a limit, so it waits for ever once
that is silently gone: after this machine has slept, or a router or tunnel has forgotten it. Here
the job's state is asked for beside its log, and a log that is silent is read again.

Whatever may hang is done in threads that nobody waits for.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, Queue
from types import FrameType
from typing import TYPE_CHECKING, Any

from mlops.cluster.job_log import JobLog
from mlops.cluster.job_server import Reading, log_file
from mlops.errors import RemoteJobError, first_line

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

# Seconds from one question for the job's state to the next.
STATE_SECONDS = 3.0
# Seconds without a line after which the log is read again: twice as many each time that this brings
# nothing, since a server goes on with a reading that nobody reads until the next line.
SILENCE_SECONDS = 20.0
LONGEST_SILENCE_SECONDS = 300.0
# Seconds without an answer after which following is given up.
PATIENCE_SECONDS = 600.0
# Seconds after Ctrl-C in which another one stops the job.
CHOICE_SECONDS = 10.0
# How often the end of a log is asked for of a server that answers, but not with it.
ATTEMPTS = 3

# Who says something, beside the log.
STATE, STOP = "state", "stop"


class RemoteJob:
    """A job that has been sent to a cluster.

    Args:
        client: Of its job server (see `job_server.connect`).
        number: Ray's name for the job.
        address: The server's.
    """

    def __init__(self, client: JobSubmissionClient, number: str, address: str) -> None:
        self.log = JobLog()
        self._client, self._number, self._address = client, number, address
        # Who said something, and what. What is read waits until it is shown.
        self._events: Queue[tuple[object, Any]] = Queue(maxsize=100)
        self._is_over = threading.Event()
        self._signals: list[int] = []
        self._leave_at = float("inf")
        self._is_stopping = False
        self._lost_at: float | None = None
        self._has_told = False

    def follow(self) -> JobDetails:
        """Shows the job's log until it has ended, whatever the connection does meanwhile.

        Ctrl-C leaves the job in a while, which goes on; a second one stops it, as SIGTERM does.

        Raises:
            KeyboardInterrupt: The user left the job, or stopped it and it has ended.
            RemoteJobError: The server has been away for too long, or the job cannot be stopped.
        """
        try:
            with self._heeding_signals():
                details = self._until_ended()
        finally:
            self._is_over.set()
        self._show_rest(details)
        if self._is_stopping and str(details.status.value) != "SUCCEEDED":
            raise KeyboardInterrupt
        return details

    def _until_ended(self) -> JobDetails:
        self._in_background(self._ask_for_state)
        silence, reading = SILENCE_SECONDS, self._read(pause=0.0)
        spoke = time.monotonic()
        while True:
            self._heed_signals()
            source, said = self._next_event()
            if source is STATE:
                if isinstance(said, Exception):
                    silence = SILENCE_SECONDS
                    self._no_answer(said)
                elif said.status.is_terminal():
                    reading.close()
                    return said
                else:
                    self._answered()
            elif source is STOP and isinstance(said, Exception):
                raise RemoteJobError(
                    f"the job {self._number} must be within reach to be stopped, got "
                    f"{first_line(said)}; if it goes on, `{self._command('stop')}`"
                ) from said
            elif source is reading and isinstance(said, str):
                spoke = time.monotonic()
                self._answered()
                if self.log.add(said):
                    silence = SILENCE_SECONDS
            if (source is reading and said is None) or time.monotonic() - spoke > silence:
                reading.close()
                reading = self._read(pause=silence / SILENCE_SECONDS)
                silence = min(2 * silence, LONGEST_SILENCE_SECONDS)
                spoke = time.monotonic()

    def _next_event(self) -> tuple[object, Any]:
        """Returns who said what; nobody if all are silent for a moment."""
        with suppress(Empty):
            return self._events.get(timeout=0.2)
        return None, None

    def _in_background(self, task: Callable[[], None]) -> None:
        threading.Thread(target=task, daemon=True).start()

    def _ask_for_state(self) -> None:
        while not self._is_over.is_set():
            said = _said(lambda: self._client.get_job_info(self._number))
            self._events.put((STATE, said))
            self._is_over.wait(STATE_SECONDS)

    def _stop(self) -> None:
        self._events.put((STOP, _said(lambda: self._client.stop_job(self._number))))

    def _read(self, pause: float) -> Reading:
        self.log.begin_again()
        return Reading(self._client, self._number, self._events, pause)

    def _answered(self) -> None:
        if self._has_told:
            print(f"{self._address} answers again", file=sys.stderr, flush=True)
        self._lost_at, self._has_told = None, False

    def _no_answer(self, error: Exception) -> None:
        """Says after a while that there is none, and gives up after a long one.

        It is counted from the first failure on, not from the last answer: this machine may have
        slept between them.
        """
        now = time.monotonic()
        self._lost_at = self._lost_at or now
        reason = first_line(error)
        if "status code 404" in reason:
            raise RemoteJobError(
                f"the job {self._number} must be known at {self._address}, got {reason}; the "
                "cluster may have been started anew: resume the study there"
            ) from error
        if now - self._lost_at > PATIENCE_SECONDS:
            raise RemoteJobError(
                f"the job {self._number} must be within reach, got no answer from {self._address} "
                f"for {PATIENCE_SECONDS / 60:.2g} min ({reason}); it goes on there: "
                f"`{self._command('logs', '--follow')}` shows it"
            ) from error
        if now - self._lost_at > SILENCE_SECONDS and not self._has_told:
            self._has_told = True
            text = f"no answer from {self._address} ({reason}); the job goes on there"
            print(text, file=sys.stderr, flush=True)

    def _command(self, verb: str, *flags: str) -> str:
        return " ".join(["ray job", verb, "--address", self._address, *flags, self._number])

    @contextmanager
    def _heeding_signals(self) -> Iterator[None]:
        """Lets signals wait until they are heeded, so that they interrupt nothing half done."""

        def note(number: int, frame: FrameType | None) -> None:
            self._signals.append(number)

        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        heeded = [number for number, on_signal in before.items() if on_signal != signal.SIG_IGN]
        for number in heeded:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number in heeded:
                signal.signal(number, before[number])

    def _heed_signals(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            if self._is_stopping:
                self._leave("it is being stopped")
            if number == signal.SIGTERM or self._leave_at < float("inf"):
                print("stopping the job", file=sys.stderr, flush=True)
                self._is_stopping, self._leave_at = True, float("inf")
                self._in_background(self._stop)
            else:
                self._leave_at = time.monotonic() + CHOICE_SECONDS
                text = f"leaving the job in {CHOICE_SECONDS:g} s; Ctrl-C again stops it instead"
                print(text, file=sys.stderr, flush=True)
        if time.monotonic() > self._leave_at:
            self._leave("it goes on there")

    def _leave(self, state: str) -> None:
        text = f"left the job, {state}: `{self._command('logs', '--follow')}` shows it"
        print(text, file=sys.stderr, flush=True)
        raise KeyboardInterrupt

    def _show_rest(self, details: JobDetails) -> None:
        """Shows what is left of the log of a job that has ended: as a file, which has an end."""
        give_up, attempts = time.monotonic() + PATIENCE_SECONDS, ATTEMPTS
        while details.driver_node_id is not None:  # else it has not even begun
            try:
                self._read_file(details.driver_node_id)
                return
            except OSError as error:
                reason, is_last = first_line(error), time.monotonic() > give_up
            except Exception as error:  # the server's own words
                attempts -= 1
                reason, is_last = first_line(error), not attempts
            if is_last:
                text = f"the last lines of the job's log cannot be read ({reason})"
                print(text, file=sys.stderr, flush=True)
                return
            time.sleep(1.0)

    def _read_file(self, node: str) -> None:
        self.log.begin_again()
        for text in log_file(self._client, self._number, node):
            self.log.add(text)
        self.log.end()


def _said(ask: Callable[[], Any]) -> Any:
    """Returns an answer, or the error that came instead."""
    try:
        return ask()
    except Exception as error:
        return error
