"""One checked table in three parts: training, validation and test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mlops.data.checks import CheckedTable, check_table, check_test_table, digest_of, empty_columns
from mlops.data.columns import some_of
from mlops.data.labels import Label
from mlops.data.sources import RawTable, read_file, read_openml, read_sklearn, read_synthetic
from mlops.data.split import stratified_split
from mlops.data.synthetic import SyntheticSpec
from mlops.errors import InputError, TableError


@dataclass(frozen=True, eq=False)
class Part:
    """Some rows of a table.

    The parts of one file share its table and hold row positions, so that splitting copies nothing.

    Attributes:
        table: Raw feature columns of the whole table.
        rows: Positions of this part's rows, ascending: [N] int64.
        target: Codes into `Parts.classes`: [N] int64.
    """

    table: pd.DataFrame
    rows: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self.rows)

    @property
    def frame(self) -> pd.DataFrame:
        """The raw feature columns of this part, copied anew at each call: [N rows]."""
        return self.table.take(self.rows).reset_index(drop=True)


@dataclass(frozen=True, eq=False)
class Parts:
    """A table, checked and split.

    Attributes:
        train: Rows to learn from.
        validation: Rows to compare trials by.
        test: Rows to score the study's result by, once.
        classes: The labels as JSON values, in order; target codes point into it.
        target_name: The target column.
        name: Short name of the table, such as "phoneme".
        source: Where it came from: a path, "sklearn:digits", "openml:1590" or "synthetic:...".
        digest: 16 hex digits, equal for equal content and independent of the split.
    """

    train: Part
    validation: Part
    test: Part
    classes: list[Label]
    target_name: str
    name: str
    source: str
    digest: str


def load_parts(
    *,
    path: str | Path | None = None,
    target: str | None = None,
    test_path: str | Path | None = None,
    sklearn: str | None = None,
    openml: int | None = None,
    synthetic: SyntheticSpec | None = None,
    separator: str | None = None,
    encoding: str | None = None,
    seed: int = 0,
    validation_fraction: float = 0.16,
    test_fraction: float = 0.2,
) -> Parts:
    """Reads a table, checks it, and splits it with every class in every part.

    Args:
        path: A file, see `sources.read_file`.
        target: The column to predict; the default is the publisher's choice, for a file `target`.
        test_path: A file that is the test part. The validation part then is the same share of the
            other rows that it would be without: validation_fraction / (1 - test_fraction).
        sklearn: A table of scikit-learn: breast_cancer, digits, iris or wine.
        openml: The number of a table on OpenML.
        synthetic: A table to generate.
        separator: What separates the cells of CSV files; found by default.
        encoding: The encoding of CSV files; found by default.
        seed: Seed of the split.
        validation_fraction: Share of all rows for validation.
        test_fraction: Share of all rows for the test.

    Raises:
        TableError: The table cannot be learned from; one line for each problem found.
        InputError: The arguments do not name one source, or the shares are not shares.
    """
    _check_arguments([path, sklearn, openml, synthetic], validation_fraction, test_fraction)
    written = {"separator": separator, "encoding": encoding}
    raw = _read(path, sklearn, openml, synthetic, written)
    test_raw = None if test_path is None else read_file(test_path, **written)
    target = _target_of(raw, target)

    table = check_table(raw, target, fewest_rows=3 if test_raw is None else 2)
    tables = [table]
    if test_raw is not None:
        tables.append(check_test_table(test_raw, target, table))
    _raise_if([problem for checked in tables for problem in checked.problems])

    if test_raw is None:
        fractions = [validation_fraction, test_fraction]
    else:
        fractions = [validation_fraction / (1 - test_fraction)]
    rows = stratified_split(table.codes, fractions, seed)
    _raise_if(empty_columns(table.features, rows[0]))
    parts = [_part(table, chosen) for chosen in rows]
    parts += [_part(held_out, np.arange(len(held_out.codes))) for held_out in tables[1:]]
    train, validation, test = parts
    return Parts(
        train=train,
        validation=validation,
        test=test,
        classes=table.labels,
        target_name=target,
        name=raw.name,
        source=raw.source,
        digest=digest_of(*tables),
    )


def _read(
    path: str | Path | None,
    sklearn: str | None,
    openml: int | None,
    synthetic: SyntheticSpec | None,
    written: dict[str, str | None],
) -> RawTable:
    if path is not None:
        return read_file(path, **written)
    if sklearn is not None:
        return read_sklearn(sklearn)
    if openml is not None:
        return read_openml(openml)
    assert synthetic is not None
    return read_synthetic(synthetic)


def _part(table: CheckedTable, rows: np.ndarray) -> Part:
    return Part(table.features, rows, table.codes[rows])


def _raise_if(problems: list[str]) -> None:
    if problems:
        raise TableError(problems)


def _target_of(raw: RawTable, target: str | None) -> str:
    chosen = raw.target if target is None else target
    if chosen is None:
        raise TableError(
            f"the column to predict must be named, got no `target`; choose one of "
            f"{some_of(list(raw.frame), most=20)}"
        )
    return chosen


def _check_arguments(
    sources: list[object], validation_fraction: float, test_fraction: float
) -> None:
    problems = []
    given = sum(source is not None for source in sources)
    if given != 1:
        problems.append(
            "a table must have one source, `path`, `sklearn`, `openml` or `synthetic`, got "
            f"{given}; give exactly one of them"
        )
    shares = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    for name, share in shares.items():
        if not 0 < share < 1:
            problems.append(f"`{name}` must be above 0 and below 1, got {share}; 0.2 is usual")
    if not problems and sum(shares.values()) >= 1:
        problems.append(
            "`validation_fraction` and `test_fraction` must leave rows to train on, got a sum of "
            f"{sum(shares.values()):g}; keep it below 1"
        )
    if problems:
        raise InputError(problems)
