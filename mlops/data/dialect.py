"""How a file of delimited text is written: its encoding, its separator, where its rows begin."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TextIO

from mlops.data.names import check_names
from mlops.data.notes import Note
from mlops.data.spelling import tidy
from mlops.errors import TableError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
SAMPLE_BYTES = 2**18
SAMPLE_ROWS = 50
# A separator gives so many rows the same number of cells.
EVEN = 0.9
# What text that is no UTF-8 may be; others are rarer than a wrong guess.
_ENCODINGS = ["cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp932", "gb18030", "euc_kr"]
_EXCEL = re.compile(r"sep=(.)\s*", re.IGNORECASE)
_QUOTE_AFTER_BLANK = re.compile(r"[,;\t|][ ]+\"")
OTHERWISE_SEPARATOR = "say otherwise with --data.separator"
OTHERWISE_ENCODING = "say otherwise with --data.encoding"


@dataclass(frozen=True)
class Dialect:
    """How a file is written.

    Attributes:
        encoding: A codec of Python's.
        separator: What separates the cells.
        names: The columns; one whose cells are to be left out has the name "".
        first_line: Lines before the first row, the header among them.
        blank_before_quotes: Whether blanks may stand between a separator and a quoted cell.
        notes: What was guessed.
    """

    encoding: str = "utf-8"
    separator: str = ","
    names: tuple[str, ...] = ()
    first_line: int = 1
    blank_before_quotes: bool = False
    notes: tuple[Note, ...] = field(default=(), compare=False)


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Opens a file that may be compressed: `.gz`, or a `.zip` of one file.

    Yields:
        The bytes of the text, and those of the file, which tell how much of it has been read.

    Raises:
        TableError: An archive holds several files.
    """
    with path.open("rb") as file:
        if path.suffix.lower() == ".gz":
            with gzip.open(file) as unpacked:
                yield unpacked, file  # type: ignore[misc]
        elif path.suffix.lower() == ".zip":
            with zipfile.ZipFile(file) as archive:
                names = [name for name in archive.namelist() if not _is_litter(name)]
                if len(names) != 1:
                    raise TableError(
                        f"an archive must hold one table, got {len(names)} files; unpack it"
                    )
                with archive.open(names[0]) as unpacked_file:
                    yield unpacked_file, file  # type: ignore[misc]
        else:
            yield file, file


def _is_litter(name: str) -> bool:
    return name.endswith("/") or name.startswith(("__MACOSX/", "."))


@contextmanager
def opened_text(path: Path, dialect: Dialect) -> Iterator[TextIO]:
    """Opens a file as text, its lines as they end."""
    with opened(path) as (file, _):
        yield io.TextIOWrapper(file, dialect.encoding, newline="")


def find_dialect(
    path: Path, *, separator: str | None = None, encoding: str | None = None
) -> Dialect:
    """Finds how a file is written, from its beginning.

    Args:
        path: The file.
        separator: What separates the cells, if the user says so.
        encoding: Its encoding, if the user says so.

    Raises:
        TableError: It is empty, its columns are named badly, or it is in no known encoding.
    """
    with opened(path) as (file, _):
        sample = file.read(SAMPLE_BYTES)
    notes: list[Note] = []
    found = encoding or encoding_of(sample, len(sample) < SAMPLE_BYTES)
    if encoding is None and found not in ("utf-8", "utf-8-sig"):
        notes.append(Note("encoding", f"text in {found}; {OTHERWISE_ENCODING}"))
    try:
        text = sample.decode(found, "ignore")
    except LookupError as error:
        raise TableError(
            f"`encoding` must be one that Python knows, got {found!r}; such as utf-8 or cp1252"
        ) from error
    lines = io.StringIO(text, newline="").readlines()
    skipped = 0
    excel = _EXCEL.fullmatch(lines[0].rstrip("\r\n")) if lines else None
    if excel:
        separator, skipped = separator or excel[1], 1
    chosen = separator or _separator_of(lines[skipped:])
    skipped += _comment_lines(lines[skipped:], chosen)
    if skipped > bool(excel):
        notes.append(Note("comment_lines", f"{skipped - bool(excel)} line(s) of comment left out"))
    if chosen != "," and separator is None:
        title = SEPARATORS.get(chosen, repr(chosen))
        notes.append(Note("separator", f"cells separated by {title}; {OTHERWISE_SEPARATOR}"))
    blanks = _QUOTE_AFTER_BLANK.search(text) is not None
    rows = csv.reader(lines[skipped:], delimiter=chosen, skipinitialspace=blanks)
    header = next((row for row in rows if row), None)
    if header is None:
        raise TableError("the file must have a header line and rows, got an empty file")
    dialect = Dialect(found, chosen, tuple(header), skipped + rows.line_num, blanks)
    names, more = _names(header, [row for row in islice(rows, SAMPLE_ROWS) if row])
    check_names(names[:-1] if names[-1] == "" and more else names)
    return replace(dialect, names=names, notes=(*notes, *more))


def encoding_of(sample: bytes, whole: bool) -> str:
    """Guesses the encoding of text.

    Args:
        sample: The text, or its beginning.
        whole: Whether it is all.

    Raises:
        TableError: It is none that is known.
    """
    if sample.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if sample.startswith(b"\xef\xbb\xbf"):
        return "utf-8-sig"
    try:
        sample.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError as error:
        if not whole and error.start > len(sample) - 4:
            return "utf-8"
    from charset_normalizer import from_bytes

    telling = b"\n".join(line for line in sample.splitlines() if not line.isascii())[:20_000]
    best = from_bytes(telling, cp_isolation=_ENCODINGS).best()
    if best is None:
        raise TableError(
            "text must be in UTF-8, got another encoding; name it with --data.encoding"
        )
    return str(best.encoding)


def _separator_of(lines: Sequence[str]) -> str:
    """Chooses the separator that gives every row as many cells, and as many as can be."""
    ranked = {}
    for separator in SEPARATORS:
        rows = islice(csv.reader(lines, delimiter=separator), SAMPLE_ROWS)
        try:
            widths = [len(row) for row in rows if row]
        except csv.Error:  # a whole line of a wide table is longer than a cell may be
            continue
        usual = max(set(widths), key=widths.count, default=0)
        # Lines of comment may stand before the header.
        while widths and widths[0] != usual and len(widths) > 1 and lines[0].startswith("#"):
            widths.pop(0)
        if usual > 1 and widths[0] in (usual, usual - 1):
            even = widths.count(usual) / len(widths)
            ranked[separator] = (even >= EVEN, usual if even >= EVEN else even)
    return max(ranked, key=ranked.__getitem__, default=",")


def _comment_lines(lines: Sequence[str], separator: str) -> int:
    """Counts the lines of comment at the top; a header may begin with # as well."""
    count = 0
    while count < len(lines) and (lines[count].startswith("#") or not lines[count].strip()):
        count += 1
    if count == 0 or not any(line.strip() for line in lines[:count]):
        return 0
    if count < len(lines):
        cells, below = (
            len(next(csv.reader([line], delimiter=separator), []))
            for line in (lines[count - 1], lines[count])
        )
        if cells == below > 1:
            return count - 1
    return count


def _names(
    header: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[tuple[str, ...], list[Note]]:
    """Takes blanks away from names, and the column that separators at the end of lines make."""
    notes = []
    names = [name.strip("\ufeff") for name in header]
    ends = [row for row in rows if len(row) == len(names) + 1 and row[-1] == ""]
    if rows and len(ends) == len(rows):
        names.append("")
    is_empty = all(row[-1] == "" for row in rows if len(row) == len(names))
    if len(names) > 1 and not names[-1].strip() and is_empty:
        notes.append(Note("trailing_separator", "a separator at the end of every line left out"))
        names[-1] = ""
    stripped = [tidy(name) for name in names]
    if stripped != names and len(set(stripped)) == len(set(names)):
        changed = sum(one != other for one, other in zip(stripped, names, strict=True))
        notes.append(Note("names_stripped", f"blanks around {changed} name(s) of columns left out"))
        names = stripped
    return tuple(names), notes
