"""What a study has to tell MLflow, in a file of its own until MLflow has it.

Each call of the writer is a line of JSON, appended before it is carried out: the call's name and
arguments. So what a driver that is killed has not sent yet is sent when the study is resumed. The
first line names the study's run and how many folders were made for it. What a study of the same
name, of another store, has not sent is put aside, and is back in its place when that one goes on.
"""

from __future__ import annotations

import errno
import fcntl
import json
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from mlops.errors import InputError
from mlops.tracking.study import storage
from mlops.tracking.study.storage import RECORD

Call = list[Any]


class Spool:
    """The file of a study, written line by line.

    Lines and files wait in memory until `open` says whose they are. A disk that is full does not
    stop a study: what the file lacks is still in memory, and `fault` says why.

    Args:
        folder: The study's folder; made when there is something to write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fault: str | None = None
        self._waiting: list[str] = []
        self._kept: dict[str, bytes] = {}
        self._file: FileIO | None = None
        # Of the folder and those it lies in, how many were made for it.
        self._made: int | None = None
        # It is opened in the thread that makes the study's run.
        self._lock = threading.RLock()

    def check(self) -> None:
        """Looks, before anything is made there, whether the folder may be used.

        Raises:
            InputError: It cannot be, or has files that are not a study's under names of a study's.
        """
        with self._explained():
            self._made = storage.missing_folders(self.folder)
            storage.check_folder(self.folder)

    def open(self, run_id: str) -> None:
        """Begins the file of a run, or goes on with it.

        Raises:
            InputError: The folder cannot be written, or is another driver's or another's.
        """
        with self._lock, self._explained():
            if self._made is None:
                self.check()
            self._open(run_id)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"storage: must be a folder that can be written, got {self.folder} "
                f"({error.strerror}); name another with --storage"
            ) from error

    def _open(self, run_id: str) -> None:
        path = self.folder / RECORD
        _claim(self.folder, run_id)
        self.folder.mkdir(parents=True, exist_ok=True)
        half = path.exists() and not path.read_bytes().endswith(b"\n")
        # Without a buffer: what has been added is in the file when the driver is killed.
        self._file = path.open("ab", buffering=0)
        with suppress(OSError):  # who drives this run is settled elsewhere
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if self._file.tell() == 0:
            self._waiting.insert(0, _line(["study", run_id, self._made]))
        else:
            self._made = _made(path)
            if half:
                self._waiting.insert(0, "\n")
        self._write("".join(self._waiting))
        self._waiting.clear()
        for name, content in self._kept.items():
            self.keep(name, content)
        self._kept.clear()

    def add(self, call: Call) -> None:
        """Appends a call."""
        with self._lock:
            if self._file is None:
                if self.fault is None:
                    self._waiting.append(_line(call))
                return
            try:
                self._write(_line(call))
            except OSError as error:
                # A line may be half there. Whoever reads leaves it out.
                self._fail(error)
                self._close()

    def keep(self, name: str, content: bytes) -> Path | None:
        """Writes a file beside the calls and returns its path; None where it cannot be written."""
        path = self.folder / name
        unfinished = path.with_suffix(".unfinished")
        with self._lock:
            if self._file is None and self.fault is None:
                self._kept[name] = content
                return path
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                unfinished.write_bytes(content)
                unfinished.replace(path)
            except OSError as error:
                self._fail(error)
                return None
        return path

    def _fail(self, error: OSError) -> None:
        if self.fault is None:
            self.fault = f"{error.strerror} at {self.folder}"
            text = f"{self.fault}: until there is room, a kill loses what MLflow does not have"
            print(text, file=sys.stderr, flush=True)

    def close(self, *, sent: bool, goes_on: bool = False) -> None:
        """Ends the file; what is all sent is removed, and folders made for it that are empty.

        Args:
            sent: Whether all is.
            goes_on: Whether the study may be resumed: its packs want their checkpoints then. With
                them stays the first line of the record, which says whose they are.
        """
        self._close()
        if sent:
            kept = storage.checkpoints_of_study(self.folder) if goes_on else []
            if kept:
                record = self.folder / RECORD
                with suppress(OSError):
                    with record.open("r+b") as file:
                        file.truncate(len(file.readline()))
                    kept.append(record)
            storage.remove_files(self.folder, kept)
        storage.remove_folders(self.folder, self._made or 0)

    def _write(self, text: str) -> None:
        assert self._file is not None
        content = text.encode()
        while content:  # a disk that is nearly full takes a part
            content = content[self._file.write(content) :]

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def read_spool(folder: Path) -> tuple[list[Call], list[str]]:
    """Reads the calls of a study whose spool is open.

    Returns:
        The calls in order, and a line for each one that cannot be read.
    """
    path = folder / RECORD
    calls: list[Call] = []
    problems = []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, 1):
        try:
            if line:
                calls.append(_call(line))
        except ValueError:
            problems.append(f"line {number} of {path} is not whole and is left out: {line[:60]!r}")
    return calls[1:], problems


def _claim(folder: Path, run_id: str) -> None:
    """Puts aside what another run has in a folder, and back what this one had there.

    Raises:
        InputError: The other run has a driver, or a file there is another's.
    """
    storage.check_folder(folder)
    with suppress(FileNotFoundError), (folder / RECORD).open("rb") as file:
        line = file.readline()
        owner = _owner(line)
        if line and owner != run_id:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    "storage: must be without a study of the same name under way, got "
                    f"{folder}, in which one of another store is kept; name another --study or "
                    "--storage"
                ) from None
            aside = _aside(folder, owner)
            # The record last: as long as it is here, what else is here is known to be its.
            _move(storage.files_of_study(folder), aside)
            text = f"{folder} held what another study of that name has not sent; it is now in "
            print(f"{text}{aside.name}", file=sys.stderr, flush=True)
    aside = _aside(folder, run_id)
    if found := storage.files_of_study(aside):
        _move(reversed(found), folder)
        storage.remove_folders(aside, 1)


def _move(files: Iterable[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        target = folder / file.name
        if target.exists():
            raise FileExistsError(errno.EEXIST, f"{target} is there already")
        file.rename(target)


def _owner(line: bytes) -> str:
    """Reads whose a file is from its first line, which may be half there."""
    with suppress(ValueError):
        call = _call(line.decode())
        if call[0] == "study":
            return str(call[1])
    return f"unknown at {int(time.time())}"


def _made(path: Path) -> int:
    """Reads how many folders were made for a file; of earlier versions it is not known."""
    with suppress(ValueError, IndexError), path.open("rb") as file:
        return int(_call(file.readline().decode())[2])
    return 0


def _aside(folder: Path, run_id: str) -> Path:
    return folder.with_name(f"{folder.name} of {run_id}")


def _line(call: Call) -> str:
    return json.dumps(call) + "\n"


def _call(line: str) -> Call:
    call = json.loads(line)
    if not isinstance(call, list) or len(call) < 2:
        raise ValueError("a line must be a call")
    return call
