"""How numbers that come of times are standardized, and differences of times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from mlops.data.columns.encoders import LIMIT, is_extreme

# Beyond so many columns of dates each is compared with the first alone.
MOST_PAIRED = 4


@dataclass(frozen=True)
class Scale:
    """How numbers are standardized: `(number - mean) / scale`, held to ±`limit`."""

    mean: float
    scale: float
    limit: float

    @classmethod
    def fit(cls, numbers: np.ndarray) -> Scale | None:
        """Learns from the known numbers ([N] float64); None where they do not vary.

        Numbers far from all the others, such as of the year 9999 for "no end", have no part in it.
        """
        if not len(numbers) or numbers.min() == numbers.max():
            return None
        usual = numbers[~is_extreme(numbers)]
        held = np.clip(numbers, usual.min(), usual.max())
        mean, scale = float(held.mean()), float(held.std())
        if scale == 0.0:  # all but the extreme ones are the same
            mean, scale = float(usual[0]), 1.0
        limit = LIMIT
        if len(usual) < len(numbers):
            limit = max(1.0, float(np.abs((held - mean) / scale).max()))
        return cls(mean, scale, limit)

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """Standardizes numbers: [N] float64."""
        return np.clip((numbers - self.mean) / self.scale, -self.limit, self.limit)


def _scale_from(state: Mapping[str, Any] | None) -> Scale | None:
    return None if state is None else Scale(**state)


@dataclass(frozen=True)
class Durations:
    """Differences in seconds between the columns of dates of a table.

    Attributes:
        names: The columns of dates.
        pairs: The columns of each difference that varies; the first is taken from the second.
        scales: How each is standardized.
    """

    names: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    scales: tuple[Scale, ...]

    @classmethod
    def fit(cls, names: Sequence[str], times: Sequence[np.ndarray]) -> Durations:
        """Learns which differences vary, and how.

        Args:
            names: The k columns of dates.
            times: Their times, NaT for a gap: k of [N] datetime64.
        """
        paired = list(combinations(range(len(names)), 2))
        if len(names) > MOST_PAIRED:
            paired = [(one, other) for one, other in paired if one == 0]
        pairs, scales = [], []
        for one, other in paired:
            seconds = _seconds_between(times[one], times[other])
            scale = Scale.fit(seconds[~np.isnan(seconds)])
            if scale is not None:
                pairs.append((names[one], names[other]))
                scales.append(scale)
        return cls(tuple(names), tuple(pairs), tuple(scales))

    @property
    def width(self) -> int:
        """Number of outputs."""
        return len(self.pairs)

    def write(self, times: Sequence[np.ndarray], out: np.ndarray) -> None:
        """Encodes differences, zero where either is a gap, into `out`: [N, width] float32, zeros.

        Args:
            times: The times of `names`, in that order: k of [N] datetime64.
            out: The outputs.
        """
        of = dict(zip(self.names, times, strict=True))
        for place, ((one, other), scale) in enumerate(zip(self.pairs, self.scales, strict=True)):
            seconds = _seconds_between(of[one], of[other])
            out[:, place] = np.where(np.isnan(seconds), 0.0, scale(seconds))

    def to_json(self) -> dict[str, Any]:
        """Returns the whole state as JSON values."""
        differences = [
            {"columns": list(pair), **asdict(scale)}
            for pair, scale in zip(self.pairs, self.scales, strict=True)
        ]
        return {"names": list(self.names), "differences": differences}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Durations:
        """Rebuilds them from `to_json`'s value."""
        differences = state["differences"]
        return cls(
            tuple(state["names"]),
            tuple((one["columns"][0], one["columns"][1]) for one in differences),
            tuple(Scale(one["mean"], one["scale"], one["limit"]) for one in differences),
        )


NO_DURATIONS = Durations((), (), ())


def _seconds_between(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    between = other.astype("datetime64[us]") - one.astype("datetime64[us]")
    return np.asarray(between / np.timedelta64(1, "s"))
