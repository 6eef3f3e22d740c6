"""The target column: plain labels, codes, and what makes a target unusable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlops.data.cells.levels import UNKNOWN, Levels
from mlops.data.cells.spelling import GAP_WORDS, is_code, number_in, tidy, truth_in
from mlops.data.columns.kinds import some_of, texts_of, type_of
from mlops.data.notes import Note
from mlops.errors import TableError

Label = str | int | bool | float

MANY_LABELS = 50
MANY_LABELS_SHARE = 0.05
# A word for "no value" that so many rows have, and no other one, is a class.
CLASS_SHARE = 0.05
LINES_TOLD = 3


@dataclass(frozen=True, eq=False)
class Target:
    """A target column, read.

    Attributes:
        codes: Positions in the labels, -1 in a row without a target: [N] int64.
        labels: The labels present, in order.
        notes: What was noticed.
    """

    codes: np.ndarray
    labels: list[Label]
    notes: tuple[Note, ...] = ()


def read_target(
    name: str, values: Any, line_of: Callable[[int], int | None] = lambda row: row + 1
) -> Target:
    """Turns a target column into codes and sorted labels.

    Labels are plain JSON values. Text stays text, except that where all of it spells truth values
    or plain numbers labels are booleans or numbers, whole ones integers (`1.0` is class 1); codes
    such as `001` and whole numbers beyond 64 bits are text. Blanks around a label, and Unicode's
    form, make no other class. Labels of several types become text.

    Args:
        name: The column.
        values: The target column, a pandas array or one of objects: [N].
        line_of: The line of the file that a row is in.

    Raises:
        TableError: It holds lists or other things that are no labels.
    """
    kind = _type_of(name, values)
    if kind in ("time", "duration"):
        raise TableError(
            f"target `{name}` must hold classes, got {kind}s; choose another target, or turn it "
            "into classes"
        )
    if kind == "category":
        kind = type_of(name, values.categories)
        kind = "category" if kind == "text" else kind
    codes, texts = texts_of(name, values)
    infinite = [text for text in texts if text in ("inf", "-inf")]
    if kind == "number" and infinite:
        raise TableError(
            f"target `{name}` must hold finite labels, got {some_of(infinite)}; correct these rows"
        )
    rows = np.bincount(codes[codes >= 0], minlength=len(texts))
    tidied = [tidy(text) for text in texts]
    classes = _classes(tidied, rows, len(codes))
    notes = _notes_of_classes(name, texts, rows, classes)
    plain = _plain(sorted(classes), kind)
    labels = sorted(set(plain.values()))
    places = {label: place for place, label in enumerate(labels)}
    of_text = [places[plain[text]] if text in classes else -1 for text in tidied]
    # The last entry is where code -1, a missing target, points.
    found = np.array([*of_text, -1], dtype=np.int64)[codes]
    missing = np.flatnonzero(found < 0)
    if len(missing) and len(classes):
        lines = [str(line_of(int(row)) or int(row) + 1) for row in missing[:LINES_TOLD]]
        more = ", ..." if len(missing) > LINES_TOLD else ""
        notes.append(
            Note(
                "no_target",
                f"{len(missing):,} row(s) without a target left out: line {', '.join(lines)}{more}",
                column=name,
                cells=len(missing),
                line=line_of(int(missing[0])),
            )
        )
    return Target(found, labels, tuple(notes))


def _notes_of_classes(
    name: str, texts: Sequence[str], rows: np.ndarray, classes: set[str]
) -> list[Note]:
    """Tells of words for a gap that are classes, and of classes written in several ways."""
    notes = []
    for word in sorted(classes & GAP_WORDS):
        notes.append(
            Note(
                "gap_word_class",
                f"the word {word} is a class, since so many rows have it; leave these rows out of "
                "the table if it means that there is no value",
                column=name,
                cells=int(sum(rows[i] for i, text in enumerate(texts) if tidy(text) == word)),
            )
        )
    if len(classes) < len({text for text in texts if tidy(text) in classes}):
        joined = sorted({tidy(text) for text in texts if text != tidy(text)} & classes)
        notes.append(
            Note(
                "labels_joined",
                f"{len(joined)} class(es) were written in several ways, with blanks around them or "
                "in another form of Unicode",
                column=name,
            )
        )
    return notes


def _type_of(name: str, values: Any) -> str:
    try:
        return type_of(name, values)
    except TableError as error:
        raise TableError(
            f"target `{name}` must hold one label in a cell, got lists, bytes or the like; choose "
            "another target, or turn it into text or numbers"
        ) from error


def _classes(texts: list[str], rows: np.ndarray, n_rows: int) -> set[str]:
    """Tells which texts are classes: all but gap words, and one that is as frequent as a class."""
    classes = {text for text in texts if text not in GAP_WORDS}
    words: dict[str, int] = {}
    for text, count in zip(texts, rows.tolist(), strict=True):
        if text in GAP_WORDS and text:
            words[text] = words.get(text, 0) + count
    if len(words) == 1:
        ((word, count),) = words.items()
        is_number = all(number_in(text) is not None for text in classes)
        if count >= CLASS_SHARE * n_rows and not (is_number and classes):
            classes.add(word)
    return classes


def _plain(texts: list[str], kind: str) -> dict[str, Label]:
    """Gives each text its label."""
    if texts and all(truth_in(text) is not None for text in texts):
        return {text: bool(truth_in(text)) for text in texts}
    numbers = {text: number_in(text) for text in texts}
    if kind == "category" or any(
        number is None or is_code(text) or abs(number) >= 2**63 for text, number in numbers.items()
    ):
        return dict(zip(texts, texts, strict=True))
    plain: dict[str, Label] = {}
    for text, number in numbers.items():
        assert number is not None
        plain[text] = int(number) if number == int(number) else float(number)
    return plain


def codes_in(name: str, values: Any, labels: list[Label]) -> tuple[np.ndarray, list[str]]:
    """Reads the target column of another table, whose labels are known.

    Returns:
        Positions in the labels, -1 in a row without a target or with another one: [N] int64; and
        the other ones.

    Raises:
        TableError: It holds lists or other things that are no labels.
    """
    _type_of(name, values)
    table = Levels([str(label) for label in labels])
    codes, texts = texts_of(name, values)
    places = [table.place(text) for text in texts]
    unseen = [text for text, place in zip(texts, places, strict=True) if place == UNKNOWN]
    found = np.array([*(max(place, -1) for place in places), -1], dtype=np.int64)[codes]
    return found, unseen


def target_problems(
    name: str, target: Target, n_rows: int, *, are_classes: bool = False
) -> list[str]:
    """Checks that a target can be learned.

    Args:
        name: The target column.
        target: The column.
        n_rows: Rows of the table.
        are_classes: Whether the user says that these are classes, however many.

    Returns:
        One line for each problem.
    """
    labels, codes = target.labels, target.codes
    if not labels:
        return [
            f"target `{name}` must have a value in some row, got none; choose another target "
            "(texts such as NA, None and ? count as no value)"
        ]
    if not are_classes and is_continuous(labels, n_rows):
        return [
            f"target `{name}` must hold classes, got {len(labels)} distinct numbers in {n_rows} "
            "rows: only classes can be predicted so far, no numbers; group them into "
            f"classes, or if each is one say so: `data.columns: {{{name}: categorical}}`"
        ]
    if len(labels) == 1:
        return [
            f"target `{name}` must have at least 2 classes, got only {labels[0]!r}; choose "
            "another target or add rows of other classes"
        ]
    counts = np.bincount(codes[codes >= 0], minlength=len(labels))
    if (counts > 0).sum() < 2:
        return [
            f"target `{name}` must have at least 2 classes of enough rows, got "
            f"{some_of(labels)} of {', '.join(map(str, counts[:5]))} row(s); add rows"
        ]
    return []


def without_rare(name: str, target: Target, fewest_rows: int) -> Target:
    """Leaves out the rows of classes that are too rare to be in every part."""
    counts = np.bincount(target.codes[target.codes >= 0], minlength=len(target.labels))
    rare = counts < fewest_rows
    if not rare.any() or (~rare).sum() < 2:
        return target
    places = np.append(np.where(rare, -1, np.cumsum(~rare) - 1), -1)
    n_rows = int(counts[rare].sum())
    note = Note(
        "rare_classes",
        f"{rare.sum()} class(es) of fewer than {fewest_rows} rows, {n_rows} row(s) in all, left "
        "out: a class must be in every part; merge them with another class, or add rows",
        column=name,
        cells=n_rows,
        warning=True,
    )
    labels = [label for label, is_rare in zip(target.labels, rare, strict=True) if not is_rare]
    return Target(places[target.codes], labels, (*target.notes, note))


def is_continuous(labels: list[Label], n_rows: int) -> bool:
    """Tells a measured number from classes that are written as numbers.

    Fractions are seldom class names, so many of them are enough; whole numbers may be (product 1 to
    500), unless there is a new one every 20 rows.
    """
    if len(labels) <= MANY_LABELS or isinstance(labels[0], (bool, str)):
        return False
    fractions = any(isinstance(label, float) for label in labels)
    return fractions or len(labels) > MANY_LABELS_SHARE * n_rows
