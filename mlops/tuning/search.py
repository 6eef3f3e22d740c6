"""A searcher that proposes packs: any of Ray Tune's searchers, K configurations at a time."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from ray.tune.search import Searcher

from mlops.hyperparameters import Hyperparameters
from mlops.space import SearchSpace
from mlops.tuning.packing import Packing
from mlops.tuning.searchers import SCORE, SEARCHERS, ask, domains_of

# What a searcher is told of a trial that has no score, by direction.
WORST = {"max": 0.0, "min": 1e6}


@dataclass
class _Pack:
    """A proposed pack: its trials' numbers, and the scores of those that have ended."""

    trials: list[int]
    scores: dict[int, float | None] = field(default_factory=dict)
    ended: bool = False


@dataclass
class _Proposals:
    """Every configuration proposed, so that none is trained twice."""

    by_key: dict[str, int] = field(default_factory=dict)
    original: list[int] = field(default_factory=list)

    def add(self, params: dict[str, Any]) -> dict[str, Any]:
        """Numbers a configuration, and says of which earlier trial it is a duplicate."""
        number = len(self.original)
        first = self.by_key.setdefault(json.dumps(params, sort_keys=True), number)
        self.original.append(first)
        duplicate_of = None if first == number else first
        return {"number": number, "params": params, "duplicate_of": duplicate_of}


class PackSearch(Searcher):
    """Asks a searcher for K configurations at a time and tells it each one's score.

    Trial 0 is the default configuration. What is proposed for pack n depends only on the scores of
    packs up to n - L, told in the order of trial numbers, so the same study proposes the same
    trials however its workers' timing falls. A configuration proposed before is numbered and
    recorded, but not trained again. A trial without a score counts as the worst.

    Tune gets as many packs as workers can train at once; the next one is proposed while they do.

    Tune sees one trial a pack, with the config
    `{"pack": n, "trials": [{"number", "params", "duplicate_of"}, ...]}`.

    Args:
        space: The search space; None for the default configuration alone.
        default: Trial 0, and the values of what the space leaves out.
        max_evals: Trials of the study.
        packing: Pack size and packs in flight.
        workers: Packs trained at the same time.
        algorithm: One of `SEARCHERS`.
        initial_points: Random trials before the algorithm models anything.
        mode: "max" or "min": which scores are better.
        seed: The study's seed.
    """

    def __init__(
        self,
        space: SearchSpace | None,
        default: Hyperparameters,
        *,
        max_evals: int,
        packing: Packing,
        workers: int,
        algorithm: str = "hyperopt",
        initial_points: int = 10,
        mode: str = "max",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self._space, self._default = space, default
        self._max_evals, self._packing, self._workers = max_evals, packing, workers
        self._direction = mode
        self._searcher: Searcher | None = None
        self._told_default = False
        if space is not None:
            first = space.locate(default.to_dict())
            self._told_default = first is not None
            domains, make = domains_of(space), SEARCHERS[algorithm]
            self._searcher = make(domains, mode, initial_points, [first] if first else [], seed)
        self._packs: list[_Pack] = []
        self._next: dict[str, Any] | None = None
        self._packs_told = 0
        self._pack_of: dict[str, int] = {}
        self._proposals = _Proposals()

    @property
    def n_packs(self) -> int:
        """How many packs the study has."""
        return -(-self._max_evals // self._packing.pack_size)

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict, **spec: Any
    ) -> bool:
        """Accepts what Tune passes on; the space is the study's own."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Returns the next pack; None while all workers have one or it depends on one under way."""
        if self._next is None:
            if len(self._packs) == self.n_packs:
                return Searcher.FINISHED
            self._next = self._propose_pack(len(self._packs))
        if self._next is None or len(self._pack_of) >= self._workers:
            return None
        pack, self._next = self._next, None
        self._pack_of[trial_id] = pack["pack"]
        return pack

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Notes the scores of trials that have ended; they are told in their pack's turn."""
        self._packs[self._pack_of[trial_id]].scores.update(result["scores"])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Notes that a pack has ended; if its worker has died for good, without a last report."""
        if result is not None:
            self.on_trial_result(trial_id, result)
        self._packs[self._pack_of.pop(trial_id)].ended = True

    def _propose_pack(self, n: int) -> dict[str, Any] | None:
        if not self._tell_up_to(n - self._packing.packs_in_flight):
            return None
        first = n * self._packing.pack_size
        numbers = range(first, min(first + self._packing.pack_size, self._max_evals))
        trials = [self._proposals.add(params) for params in self._propose(numbers)]
        self._packs.append(_Pack(list(numbers)))
        return {"pack": n, "trials": trials}

    def _propose(self, numbers: range) -> list[dict[str, Any]]:
        default = self._default.to_dict()
        if self._searcher is None or self._space is None:
            return [default] * len(numbers)
        untold = [default] if numbers[0] == 0 and not self._told_default else []
        points = ask(self._searcher, [str(number) for number in numbers[len(untold) :]])
        return untold + [{**default, **self._space.resolve(point)} for point in points]

    def _tell_up_to(self, last: int) -> bool:
        """Tells the scores of packs up to `last`; False if one of them has not ended."""
        while self._packs_told <= last:
            pack = self._packs[self._packs_told]
            if not pack.ended:
                return False
            for number in pack.trials:
                self._tell(number)
            self._packs_told += 1
        return True

    def _tell(self, number: int) -> None:
        if self._searcher is None or (number == 0 and not self._told_default):
            return
        score = self._score(number)
        told = WORST[self._direction] if score is None else score
        self._searcher.on_trial_complete(str(number), {SCORE: told, "training_iteration": 1})

    def _score(self, number: int) -> float | None:
        original = self._proposals.original[number]
        return self._packs[original // self._packing.pack_size].scores.get(original)

    def save(self, checkpoint_path: str) -> None:
        """Saves nothing: a study resumes from its MLflow record."""

    def restore(self, checkpoint_path: str) -> None:
        """Restores nothing: a study resumes from its MLflow record."""
