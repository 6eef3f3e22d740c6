"""Files of text as they lie on a disk: plain, gzipped, or alone in a zip archive."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from mlops.errors import TableError

CHUNK_BYTES = 2**21


def ending_of(path: str | Path) -> str:
    """Returns the ending that tells a file's kind, such as `.csv` of `t.csv.gz`; `.zip` of `t.zip`.

    The ending of the file in an archive is known once it is opened: see `inner_ending`.
    """
    path = Path(path)
    ending = path.suffix.lower()
    return path.with_suffix("").suffix.lower() if ending == ".gz" else ending


def inner_ending(path: Path) -> str:
    """Returns the ending of what a file holds, also if it is in a zip archive.

    Raises:
        TableError: An archive holds no file, or several.
    """
    if path.suffix.lower() != ".zip":
        return ending_of(path)
    with zipfile.ZipFile(path) as archive:
        return Path(_only_member(archive)).suffix.lower()


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Opens a file to be read, unpacked.

    Yields:
        What it holds; and the file on the disk, whose position tells how far it has been read.

    Raises:
        TableError: An archive holds no file, or several, or is locked.
    """
    with path.open("rb") as raw:
        if path.suffix.lower() == ".gz":
            with gzip.open(raw) as file:
                yield cast(BinaryIO, file), raw
        elif path.suffix.lower() == ".zip":
            with zipfile.ZipFile(raw) as archive:
                name = _only_member(archive)
                try:
                    member = archive.open(name)
                except RuntimeError as error:  # its way to say that a password is needed
                    raise TableError(
                        f"the file in an archive must be readable, got: {error}; unpack it"
                    ) from error
                with member as file:
                    yield cast(BinaryIO, file), raw
        else:
            yield raw, raw


def chunks(file: BinaryIO, size: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Reads a file to its end, some bytes at a time."""
    while chunk := file.read(size):
        yield chunk


def _only_member(archive: zipfile.ZipFile) -> str:
    names = [
        name
        for name in archive.namelist()
        if not name.endswith("/") and not name.startswith("__MACOSX/")
    ]
    if len(names) != 1:
        found = ", ".join(f"`{name}`" for name in names[:5]) or "none"
        raise TableError(f"a .zip archive must hold one file, got {found}; unpack the one wanted")
    return names[0]
