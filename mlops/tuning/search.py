"""A searcher that proposes packs: any of Ray Tune's searchers, K configurations at a time."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ray import tune
from ray.tune.search import Searcher

from mlops.hyperparameters import Hyperparameters
from mlops.space import Choice, Int, Point, SearchSpace, Uniform
from mlops.tuning.packing import Packing

_SCORE = "score"
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
            domains = {path: _domain(entry) for path, entry in space.paths().items()}
            make = SEARCHERS[algorithm]
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
        trials = [self._proposals.add(self._propose(number)) for number in numbers]
        self._packs.append(_Pack(list(numbers)))
        return {"pack": n, "trials": trials}

    def _propose(self, number: int) -> dict[str, Any]:
        default = self._default.to_dict()
        if (
            self._searcher is None
            or self._space is None
            or (number == 0 and not self._told_default)
        ):
            return default
        point = self._searcher.suggest(str(number))
        return {**default, **self._space.resolve(point)}

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
        self._searcher.on_trial_complete(str(number), {_SCORE: told, "training_iteration": 1})

    def _score(self, number: int) -> float | None:
        original = self._proposals.original[number]
        return self._packs[original // self._packing.pack_size].scores.get(original)

    def save(self, checkpoint_path: str) -> None:
        """Saves nothing: a study resumes from its MLflow record."""

    def restore(self, checkpoint_path: str) -> None:
        """Restores nothing: a study resumes from its MLflow record."""


def import_searcher(algorithm: str) -> None:
    """Imports what an algorithm needs, which takes about a second."""
    if algorithm != "random":
        importlib.import_module(f"ray.tune.search.{algorithm}")


def _domain(entry: Any) -> Any:
    if isinstance(entry, Choice):
        return tune.choice(list(range(len(entry.options))))
    if isinstance(entry, Int):
        return tune.randint(entry.low, entry.high + 1)
    assert isinstance(entry, Uniform)
    return (tune.loguniform if entry.log else tune.uniform)(entry.low, entry.high)


Domains = Mapping[str, Any]


def _hyperopt(
    domains: Domains, mode: str, initial_points: int, first: list[Point], seed: int
) -> Searcher:
    from ray.tune.search.hyperopt import HyperOptSearch

    searcher = HyperOptSearch(
        points_to_evaluate=[dict(point) for point in first] or None,
        n_initial_points=initial_points,
        random_state_seed=seed,
    )
    searcher.set_search_properties(_SCORE, mode, dict(domains))
    return searcher


def _optuna(
    domains: Domains, mode: str, initial_points: int, first: list[Point], seed: int
) -> Searcher:
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    searcher = OptunaSearch(
        sampler=optuna.samplers.TPESampler(n_startup_trials=initial_points, seed=seed),
        points_to_evaluate=[dict(point) for point in first] or None,
    )
    searcher.set_search_properties(_SCORE, mode, dict(domains))
    return searcher


class RandomSearch(Searcher):
    """Draws every configuration at random, after the points it was given."""

    def __init__(self, domains: Domains, first: list[Point], seed: int) -> None:
        super().__init__()
        self._domains = domains
        self._first = list(first)
        self._random = np.random.RandomState(seed % 2**32)

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Draws a point."""
        if self._first:
            return dict(self._first.pop(0))
        return {
            path: domain.sample(random_state=self._random) for path, domain in self._domains.items()
        }

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Learns nothing."""


def _random(
    domains: Domains, mode: str, initial_points: int, first: list[Point], seed: int
) -> Searcher:
    return RandomSearch(domains, first, seed)


SEARCHERS: dict[str, Callable[[Domains, str, int, list[Point], int], Searcher]] = {
    "hyperopt": _hyperopt,
    "optuna": _optuna,
    "random": _random,
}
