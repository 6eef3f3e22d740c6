"""The columns of a model, as a request has them."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from mlops.data.columns.date_columns import DateColumn
from mlops.data.columns.encoders import NumericColumn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mlops.data.columns.features import FeatureEncoder


class Columns:
    """The names of a model's columns, and how to take a row apart.

    Args:
        encoder: The model's preprocessing.
        others: Names of columns that a row may have besides, to no effect.

    Attributes:
        names: All columns, in the order of the training table.
        numeric: Those that hold numbers.
        categorical: Those that hold categories.
        dates: The fitted columns that hold dates.
        ordered: First the numeric ones, then the others: the order of cells in `Cells`.
        known: The set of names.
        ignored: Those of `others` that are no columns of the model.
        numbers: The fitted columns of `numeric`.
    """

    def __init__(self, encoder: FeatureEncoder, others: Iterable[str] = ()) -> None:
        self.names = tuple(column.name for column in encoder.columns)
        self.numeric = tuple(c.name for c in encoder.columns if c.kind == "numeric")
        self.categorical = tuple(c.name for c in encoder.columns if c.kind == "categorical")
        self.dates = tuple(c for c in encoder.columns if isinstance(c, DateColumn))
        self.ordered = self.numeric + self.categorical + tuple(c.name for c in self.dates)
        self.known = frozenset(self.names)
        self.ignored = frozenset(others) - self.known
        self.numbers = tuple(c for c in encoder.columns if isinstance(c, NumericColumn))
        self._singles = [place for place, c in enumerate(self.numbers) if c.single]
        self._take = itemgetter(*self.ordered)

    def transposed(self, rows: Sequence[Mapping[str, Any]]) -> list[Sequence[Any]]:
        """Returns the cells of each column, in the order of `ordered`.

        Raises:
            KeyError: A row lacks a column.
        """
        if len(self.ordered) == 1:
            return [list(map(self._take, rows))]
        return list(zip(*map(self._take, rows), strict=True))

    def rounded(self, numbers: np.ndarray) -> np.ndarray:
        """Rounds [N, k] numbers to float32, in place, in the columns that hold such."""
        if self._singles:
            with np.errstate(over="ignore"):
                numbers[:, self._singles] = numbers[:, self._singles].astype(np.float32)
        return numbers
