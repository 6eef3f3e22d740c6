"""Seeded splits that keep the shares of the classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def stratified_split(codes: np.ndarray, fractions: Sequence[float], seed: int) -> list[np.ndarray]:
    """Splits rows at random, class by class.

    Of a class of n rows each part gets n * fraction, rounded, but at least one; what is left, at
    least one too, makes the first part. scikit-learn's splitters do not promise rare classes a row
    in each part.

    Args:
        codes: The class of each row: [N] int64. Each class has at least `len(fractions) + 1` rows.
        fractions: Shares of all parts but the first, each above 0, together below 1.
        seed: The same seed and codes give the same split.

    Returns:
        Row positions of each part, ascending: [N_i] int64. The first part is the rest.
    """
    shuffled = np.random.default_rng(seed).permutation(len(codes))
    by_class = shuffled[np.argsort(codes[shuffled], kind="stable")]
    parts: list[list[np.ndarray]] = [[] for _ in range(len(fractions) + 1)]
    for rows in np.split(by_class, np.cumsum(np.bincount(codes))[:-1]):
        for part, piece in zip(parts, np.split(rows, _bounds(len(rows), fractions)), strict=True):
            part.append(piece)
    return [np.sort(np.concatenate(pieces)) for pieces in parts]


def _bounds(n_rows: int, fractions: Sequence[float]) -> np.ndarray:
    """Returns where the parts after the first begin in a class of `n_rows` rows."""
    sizes = []
    left = n_rows
    for place, fraction in enumerate(fractions):
        kept_back = len(fractions) - place  # a row for each part still to come and for the first
        size = min(max(1, int(n_rows * fraction + 0.5)), left - kept_back)
        sizes.append(size)
        left -= size
    return np.cumsum([left, *sizes[:-1]])
