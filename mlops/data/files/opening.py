"""Files of text as they lie on a disk: plain, gzipped or in a zip archive, in any encoding."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from mlops.errors import TableError

CHUNK_BYTES = 2**21  # of text that is read at a time
BLOCK_BYTES = 2**24  # of the rows that are read at a time, about, unless they are counted
MOST_ROWS = 2**17


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


class Utf8Text(io.RawIOBase):
    """A file's text as UTF-8, without blanks between a separator and a quote.

    Attributes:
        quotes: How many quotes have been read.
    """

    def __init__(self, file: BinaryIO, encoding: str, separator: str) -> None:
        # With what is kept back of the one before, a chunk is not to be cut.
        self._chunks = chunks(file, CHUNK_BYTES - 2**12)
        is_utf8 = encoding in ("utf-8", "utf-8-sig")
        self._decoder = None if is_utf8 else codecs.getincrementaldecoder(encoding)()
        self._blanks = re.compile(b"(?<=[" + re.escape(separator.encode()) + rb'\r\n]) +(?=")')
        self._before_blanks = (b" ", b"\r", b"\n", separator.encode())
        self._ready = b""
        self._carried = b""
        self.quotes = 0
        if is_utf8:
            self._chunks = _without_mark(self._chunks)

    def readable(self) -> bool:
        return True

    def skip(self, characters: int) -> None:
        """Skips the head of the file; called once, before the first read."""
        head = b""
        while True:
            try:
                if len(head.decode("utf-8")) >= characters:
                    break
            except UnicodeDecodeError:
                pass  # a character is cut
            more = self._next()
            if not more:
                break
            head += more
        text = head.decode("utf-8", "surrogateescape")
        self._carried = text[characters:].encode("utf-8", "surrogateescape")

    def read(self, size: int = -1) -> bytes:
        size = CHUNK_BYTES if size < 0 else size
        # Arrow takes what comes for a block: one much too short would never hold a long row, and
        # to fill it to the last byte would copy all of the text.
        while len(self._ready) <= size // 2 and (chunk := self._tidied()) is not None:
            self._ready = self._ready + chunk if self._ready else chunk
        if len(self._ready) <= size:
            given, self._ready = self._ready, b""
        else:
            given, self._ready = self._ready[:size], self._ready[size:]
        return given

    def _next(self) -> bytes:
        """Returns more of the text, nothing at its end."""
        for chunk in self._chunks:
            if self._decoder is None:
                return chunk
            if text := self._decoder.decode(chunk):
                return text.encode()
        if self._decoder is not None:
            decoder, self._decoder = self._decoder, None
            return decoder.decode(b"", final=True).encode()
        return b""

    def _tidied(self) -> bytes | None:
        more = self._next()
        chunk, self._carried = self._carried + more if self._carried else more, b""
        if not chunk:
            return None
        # What blanks may follow is kept back until it is known what comes after them.
        if more and chunk.endswith(self._before_blanks):
            cut = max(0, len(chunk.rstrip(b" ")) - 1)
            chunk, self._carried = chunk[:cut], chunk[cut:]
        if b' "' not in chunk:  # a pattern takes ten times as long
            self.quotes += chunk.count(b'"')
            return chunk
        kept, place = [], 0
        for blanks in self._blanks.finditer(chunk):
            self.quotes += chunk.count(b'"', place, blanks.start())
            is_quoted = self.quotes % 2
            kept.append(chunk[place : blanks.end() if is_quoted else blanks.start()])
            place = blanks.end()
        self.quotes += chunk.count(b'"', place)
        return b"".join([*kept, chunk[place:]]) if kept else chunk


def _without_mark(pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield next(pieces, b"").removeprefix(codecs.BOM_UTF8)
    yield from pieces
