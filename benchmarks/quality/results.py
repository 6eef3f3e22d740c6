"""Results, a line for each table, split and contender, and what they say together."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Literal

from benchmarks.quality.tables import Score

PartName = Literal["validation", "test"]
# A table on which one is far ahead must not decide for all.
LEAST, MOST = 0.5, 2.0


@dataclass(frozen=True)
class Result:
    """How well a contender did on a split of a table."""

    table: str
    split: int
    contender: str
    validation: Score
    test: Score
    seconds: float

    @property
    def key(self) -> tuple[str, int, str]:
        return self.table, self.split, self.contender


class Results:
    """A file of results, to which each is added when it is known: a run goes on where it stopped.

    Args:
        path: The file, JSON lines.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[tuple[str, int, str], Result] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                read = json.loads(line)
                scores = {name: Score(**read.pop(name)) for name in ("validation", "test")}
                result = Result(**read, **scores)
                self._known[result.key] = result

    def __contains__(self, key: tuple[str, int, str]) -> bool:
        return key in self._known

    def __iter__(self) -> Iterator[Result]:
        return iter(self._known.values())

    def add(self, result: Result) -> None:
        self._known[result.key] = result
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(result)) + "\n")


@dataclass(frozen=True)
class Ratio:
    """One contender against another on a table.

    Attributes:
        table: Its name.
        error: Errors pooled over the splits of both, half an error added to each.
        sigma: Standard error of the mean over splits of the errors' difference, as a share of the
            other's errors; NaN of one split.
        log_loss: Ratio of the mean log losses.
        seconds: Mean wall seconds of the first.
    """

    table: str
    error: float
    sigma: float
    log_loss: float
    seconds: float


def ratios(results: Sequence[Result], one: str, other: str, part: PartName) -> list[Ratio]:
    """Compares two contenders on each table that has splits of both."""
    by_table: dict[str, dict[str, dict[int, Result]]] = defaultdict(lambda: defaultdict(dict))
    for result in results:
        by_table[result.table][result.contender][result.split] = result
    found = []
    for table, of in by_table.items():
        splits = sorted(of[one].keys() & of[other].keys())
        if splits:
            ours, theirs = ([of[who][split] for split in splits] for who in (one, other))
            found.append(_ratio(table, ours, theirs, part))
    return found


def _ratio(table: str, ours: list[Result], theirs: list[Result], part: PartName) -> Ratio:
    mine: list[Score] = [getattr(result, part) for result in ours]
    others: list[Score] = [getattr(result, part) for result in theirs]
    errors, of_others = (sum(score.errors for score in scores) + 0.5 for scores in (mine, others))
    differences = [a.errors - b.errors for a, b in zip(mine, others, strict=True)]
    sigma = math.nan
    if len(differences) > 1:
        sigma = stdev(differences) / math.sqrt(len(differences)) / (of_others / len(differences))
    return Ratio(
        table,
        errors / of_others,
        sigma,
        mean(score.log_loss for score in mine) / mean(score.log_loss for score in others),
        mean(result.seconds for result in ours),
    )


def geometric_mean(values: Sequence[float]) -> float:
    """Returns the geometric mean of ratios, each held to `LEAST` and `MOST`."""
    held = [min(max(value, LEAST), MOST) for value in values]
    return math.exp(mean(map(math.log, held)))
