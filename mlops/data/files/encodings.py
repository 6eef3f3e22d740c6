"""In which encoding a file of text is written."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

from mlops.data.files.opening import chunks, opened
from mlops.data.notes import Note
from mlops.errors import TableError

SAMPLE_BYTES = 2**16  # of lines that hold more than ASCII
# What else than cp1252 text is found in; a list of all that there are makes the guess worse.
CANDIDATES = [
    *("cp1250", "cp1251", "koi8_r", "cp1253", "cp1254"),
    *("shift_jis", "euc_jp", "gb18030", "big5", "euc_kr"),
]
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_PUNCTUATION = frozenset("\u2019\u2018\u201c\u201d\u201e\u2013\u2014\u2026«»·ªº°")


def find_encoding(path: Path, given: str | None = None) -> tuple[str, list[Note]]:
    """Finds a file's encoding, for which all of it is read.

    It is what the mark at the file's start says, or else UTF-8 if the whole file is that, or else
    guessed from the lines that are more than ASCII.

    Args:
        path: The file.
        given: The encoding, if it is known; it is checked for being one.

    Returns:
        The name that Python has for it, and a note unless it is UTF-8 or was given.

    Raises:
        TableError: The file holds NUL bytes, or is UTF-8 but for a few bytes; or there is no such
            encoding.
    """
    if given is not None:
        return _known(given), []
    with opened(path) as (file, _):
        start = file.read(4)
    for mark, name in _MARKS.items():
        if start.startswith(mark):
            return name, [] if name == "utf-8-sig" else [_note(name, "as the mark at its start")]
    sample = _survey(path)
    if sample is None:
        return "utf-8", []
    name = _guess(sample.lines)
    return name, [_note(name, f"as guessed from {len(sample.lines):,} bytes of it", sample.line)]


@dataclass
class _Sample:
    line: int  # the first that is not UTF-8
    lines: bytes


def _survey(path: Path) -> _Sample | None:
    """Collects the lines that are more than ASCII, unless the file is UTF-8: then None."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    start, bad, lines, pending = 0, -1, bytearray(), False
    with opened(path) as (file, _):
        for chunk in chunks(file):
            if b"\0" in chunk:
                raise TableError(_nul_problem(_line_at(path, start + chunk.index(b"\0"))))
            if pending or not chunk.isascii():
                if len(lines) < SAMPLE_BYTES:
                    lines += b"".join(re.findall(rb"[^\n]*[\x80-\xff][^\n]*\n?", chunk))
                if bad < 0:
                    before = len(decoder.getstate()[0])
                    try:
                        decoder.decode(chunk)
                        pending = bool(decoder.getstate()[0])
                    except UnicodeDecodeError as error:
                        bad = start - before + error.start
            start += len(chunk)
            if bad >= 0 and len(lines) >= SAMPLE_BYTES:
                break
    if bad < 0 and not pending:
        return None
    line = _line_at(path, bad if bad >= 0 else start)
    text = bytes(lines[:SAMPLE_BYTES]).decode("utf-8", "replace")
    damaged = text.count("\ufffd")
    if sum(letter > "\x7f" for letter in text) - damaged > damaged:
        raise TableError(
            f"line {line:,} must be text in UTF-8, as other lines are, got other bytes; mend the "
            "line, or say the file's encoding by `data.encoding`"
        )
    return _Sample(line, bytes(lines[:SAMPLE_BYTES]))


def _line_at(path: Path, position: int) -> int:
    """Returns the line, from 1, that a byte is in."""
    line, start = 1, 0
    with opened(path) as (file, _):
        for chunk in chunks(file):
            line += chunk.count(b"\n", 0, max(0, position - start))
            start += len(chunk)
            if start > position:
                break
    return line


def _guess(sample: bytes) -> str:
    try:
        if _is_western(sample.decode("cp1252")):
            return "cp1252"
    except UnicodeDecodeError:
        pass
    from charset_normalizer import from_bytes

    best = from_bytes(sample, cp_isolation=CANDIDATES).best()
    return "latin-1" if best is None else best.encoding


def _is_western(text: str) -> bool:
    """Tells whether text reads as a language of Western Europe: accents are few among letters.

    Russian or Greek taken for it is accented all over, Polish has signs inside of words.
    """
    words = re.findall(r"[^\s\d,;|\t\"]*[^\x00-\x7f][^\s\d,;|\t\"]*", text)
    letters = [letter for word in words for letter in word if letter.isalpha()]
    signs = [
        letter
        for word in words
        for letter in word
        if letter > "\x7f" and not letter.isalpha() and letter not in _PUNCTUATION
        if any(other.isalpha() for other in word)
    ]
    accents = sum(letter > "\x7f" for letter in letters)
    return len(signs) <= 0.02 * len(words) and accents <= 0.5 * len(letters)


def _known(given: str) -> str:
    try:
        codecs.lookup(given)
        "".encode(given)
    except (LookupError, UnicodeError) as error:
        raise TableError(
            f"`data.encoding` must be an encoding such as utf-8, latin-1 or utf-16, got `{given}`"
        ) from error
    # Python's utf-8 would keep the mark that some programs begin a file with.
    return "utf-8-sig" if codecs.lookup(given).name == "utf-8" else given


def _nul_problem(line: int) -> str:
    return (
        f"line {line:,} must be text, got a NUL byte; the file is damaged, or say its encoding by "
        "`data.encoding`, such as utf-16-le"
    )


def _note(name: str, why: str, line: int | None = None) -> Note:
    text = f"the file's text is read as {name}, {why}; say otherwise by `data.encoding`"
    return Note("encoding", text, line=line)
