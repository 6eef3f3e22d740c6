"""The configurations that a searcher proposes, by trial numbers, and what it is told of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ray.tune.search import Searcher

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.configuration.space import SearchSpace
from mlops.errors import InputError
from mlops.nn.tasks.metrics import METRICS, Metric
from mlops.tracking.study.record import TrialRecord
from mlops.tuning.search.searchers import SCORE, SEARCHERS, ask, domains_of


class Proposals:
    """Every configuration proposed, in the order of trial numbers.

    Trial 0 is the default configuration. One proposed before is numbered, but names the first: it
    is not trained again. A trial without a score counts as the worst.

    Args:
        space: The search space; None for the default configuration alone.
        default: Trial 0, and the values of what the space leaves out.
        algorithm: One of `SEARCHERS`.
        initial_points: Random trials before the algorithm models anything.
        metric: What scores are of.
        seed: The study's seed.

    Attributes:
        trials: `{"number", "params", "duplicate_of"}` of each.
    """

    def __init__(
        self,
        space: SearchSpace | None,
        default: Hyperparameters,
        *,
        algorithm: str = "hyperopt",
        initial_points: int = 10,
        metric: Metric = METRICS["val_accuracy"],
        seed: int = 0,
    ) -> None:
        self.trials: list[dict[str, Any]] = []
        self._space, self._default, self._metric = space, default, metric
        self._searcher: Searcher | None = None
        self._told_default = False
        self._first: dict[str, int] = {}
        if space is not None:
            first = space.locate(default.to_dict())
            self._told_default = first is not None
            domains, make = domains_of(space), SEARCHERS[algorithm]
            self._searcher = make(
                domains, metric.mode, initial_points, [first] if first else [], seed
            )

    def propose(self, count: int) -> None:
        """Proposes the next trials."""
        numbers = range(len(self.trials), len(self.trials) + count)
        for params in self._configurations(numbers):
            number = len(self.trials)
            first = self._first.setdefault(json.dumps(params, sort_keys=True), number)
            duplicate_of = None if first == number else first
            self.trials.append({"number": number, "params": params, "duplicate_of": duplicate_of})

    def original(self, number: int) -> int:
        """Returns the trial itself, or the one that it is a duplicate of."""
        first: int | None = self.trials[number]["duplicate_of"]
        return number if first is None else first

    def tell(self, number: int, scores: Mapping[int, float | None]) -> None:
        """Tells the searcher a trial's score: its own, or that of which it is a duplicate."""
        if self._searcher is None or (number == 0 and not self._told_default):
            return
        score = scores.get(self.original(number))
        told = self._metric.worst if score is None else score
        self._searcher.on_trial_complete(str(number), {SCORE: told, "training_iteration": 1})

    def check_same(self, number: int, recorded: TrialRecord | None) -> None:
        """Checks that a trial is the one on record.

        Raises:
            InputError: It is not.
        """
        if recorded is None or not recorded.params:
            return
        proposed = json.loads(json.dumps(self.trials[number]["params"]))
        if proposed != recorded.params:
            raise InputError(
                f"trial {number} must be proposed as it was before, got {proposed}, was "
                f"{recorded.params}; resume with the versions of Python's libraries and on the "
                "kind of processor that the study was begun with"
            )

    def _configurations(self, numbers: range) -> list[dict[str, Any]]:
        default = self._default.to_dict()
        if self._searcher is None or self._space is None:
            return [default] * len(numbers)
        untold = [default] if numbers[0] == 0 and not self._told_default else []
        points = ask(self._searcher, [str(number) for number in numbers[len(untold) :]])
        return untold + [{**default, **self._space.resolve(point)} for point in points]
