"""How a CSV file is written: its encoding, its separator, and where its rows begin."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlops.data.columns.names import check_names, stripped
from mlops.data.files.encodings import find_encoding
from mlops.data.files.opening import inner_ending, opened
from mlops.data.notes import Note
from mlops.errors import TableError

SAMPLE_BYTES = 2**18
SAMPLE_ROWS = 1000
# Where two split the rows equally well: commas may be decimal signs, bars may be in texts.
_SEPARATORS = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "bars"}


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written.

    Attributes:
        encoding: As Python names it.
        separator: One character.
        names: Names of the columns.
        width: Cells of a row; more than names where every line ends in separators.
        head: Characters before the first row, without a byte order mark.
        head_lines: Lines before the first row.
        notes: What was found that is not usual.
    """

    encoding: str
    separator: str
    names: tuple[str, ...]
    width: int
    head: int
    head_lines: int
    notes: tuple[Note, ...]


def find_dialect(path: Path, separator: str | None = None, encoding: str | None = None) -> Dialect:
    """Finds how a CSV file is written, from its first lines; for the encoding all is read.

    Args:
        path: The file; it may be gzipped or in a zip archive.
        separator: What separates cells, if it is known.
        encoding: The file's encoding, if it is known.

    Raises:
        TableError: The file is empty, or columns have no name or the same one.
    """
    encoding, notes = find_encoding(path, encoding)
    lines = _first_lines(path, encoding)
    start, told, comments = _preamble(lines)
    if start == len(lines) and not comments:
        raise TableError("the file must have a header line and rows, got an empty file")
    given = separator or told
    chosen = given or _best_separator(lines[start:], inner_ending(path))
    usual = "\t" if inner_ending(path) == ".tsv" else ","
    if chosen != usual and given is None:
        notes.append(_separator_note(chosen))
    if comments and _is_header(lines[comments[-1]], lines[start:], chosen):
        start = comments.pop()
    if start == len(lines):
        raise TableError("the file must have a header line and rows, got comments alone")
    if comments:
        text = (
            f"{len(comments)} line(s) before the header that begin with # are left out; take the "
            "# away if one is the header"
        )
        notes.append(Note("comment_lines", text, cells=len(comments), line=comments[0] + 1))
    rows, used = _rows(lines[start:], chosen)
    names, width, trailing = _columns(rows, start + 1)
    names, blanks = stripped(names)
    check_names(names)
    head = lines[: start + used]
    return Dialect(
        encoding,
        chosen,
        tuple(names),
        width,
        sum(map(len, head)),
        len(head),
        (*notes, *trailing, *blanks),
    )


def split_rows(lines: Sequence[str], separator: str) -> list[list[str]]:
    """Splits lines into the cells of rows; a row without any cell is left out."""
    return _rows(lines, separator)[0]


def _rows(lines: Sequence[str], separator: str) -> tuple[list[list[str]], int]:
    """Also returns how many lines the first row takes, with those left out before it."""
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(iter(lines), delimiter=separator, skipinitialspace=True)
    rows, used = [], 0
    for row in reader:
        if row:
            rows.append(row)
            used = used or reader.line_num
        if len(rows) > SAMPLE_ROWS:
            break
    return rows, used


def _first_lines(path: Path, encoding: str) -> list[str]:
    decoder = codecs.getincrementaldecoder(encoding)()
    size = SAMPLE_BYTES
    with opened(path) as (file, _):
        text = decoder.decode(file.read(size))
        # A header may be longer than that.
        while len(lines := list(io.StringIO(text, newline=""))) < 3:
            more = file.read(size)
            text += decoder.decode(more, final=not more)
            if not more:
                return list(io.StringIO(text, newline=""))
            size *= 2
        rest = file.read(1)
    return lines[:-1] if rest else lines


def _preamble(lines: list[str]) -> tuple[int, str | None, list[int]]:
    """Returns where the header is, the separator that Excel names, and which lines are comments."""
    told, comments, place = None, [], 0
    for place, line in enumerate(lines):
        if found := re.fullmatch(r'"?sep=(.)"?[,;\t|]*\s*', line, re.IGNORECASE):
            told = found[1]
        elif line.startswith("#"):
            comments.append(place)
        elif line.strip():
            return place, told, comments
    return len(lines), told, comments


def _is_header(comment: str, lines: list[str], separator: str) -> bool:
    """Tells whether the last line that begins with # names the columns: `#id,x` above `7,0.5`."""
    rows = split_rows(lines, separator)
    names = split_rows([comment], separator)[0]
    if not rows:
        return len(names) > 1
    return len(names) == len(rows[0]) > 1 and any(_is_number(cell) for cell in rows[0])


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"\s*[-+]?\d[\d.,]*(e[-+]?\d+)?\s*", cell, re.IGNORECASE) is not None


def _best_separator(lines: list[str], ending: str) -> str:
    found = {}
    for place, separator in enumerate(_SEPARATORS):
        rows = split_rows(lines, separator)
        if rows and len(rows[0]) > 1:
            width = len(rows[0])
            fitting = sum(abs(len(row) - width) <= _trailing(row, rows[0]) for row in rows[1:])
            share = fitting / max(1, len(rows) - 1)
            found[share, width, -place] = separator
    return found[max(found)] if found else "\t" if ending == ".tsv" else ","


def _trailing(row: list[str], header: list[str]) -> int:
    """How far a row's length may be off: by the empty cells at the end of the longer of both."""
    longer = row if len(row) > len(header) else header
    return min(1, _empty_at_end(longer))


def _empty_at_end(row: list[str]) -> int:
    return next((i for i, cell in enumerate(reversed(row)) if cell.strip()), len(row))


def _columns(rows: list[list[str]], line: int) -> tuple[list[str], int, list[Note]]:
    """Returns the columns' names and the cells of a row, where lines may end in separators."""
    header, body = rows[0], rows[1:]
    width = Counter(map(len, body)).most_common(1)[0][0] if body else len(header)
    if abs(width - len(header)) > 1:
        width = len(header)
    unnamed = _empty_at_end(header)
    named = len(header) - unnamed
    extra = width - named
    empty = all(_empty_at_end(row) >= extra for row in body if len(row) == width)
    if not (unnamed or extra) or not named or extra < 0 or not empty:
        return header, len(header), []
    text = (
        f"{max(extra, unnamed)} column(s) at the end of the lines without a name and without a "
        "cell are left out; name them to keep them"
    )
    return header[:named], width, [Note("trailing_separator", text, line=line)]


def _separator_note(separator: str) -> Note:
    text = (
        f"cells are separated by {_SEPARATORS[separator]}, as found from the first lines; say "
        "otherwise by `data.separator`"
    )
    return Note("separator", text)
