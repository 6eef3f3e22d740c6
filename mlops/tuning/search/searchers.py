"""Searchers of Ray Tune by the names that settings give them, over the paths of a search space."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from ray import tune
from ray.tune.search import Searcher

from mlops.configuration.space import Choice, Distribution, Int, Point, SearchSpace
from mlops.tuning.known import is_known

# The name of the metric that searchers are told.
SCORE = "score"
# The versions of which `tpe` uses the insides.
READ_IN = {"ray": "2.60", "hyperopt": "0.3"}

Domains = Mapping[str, Any]


@runtime_checkable
class SuggestsMany(Protocol):
    """A searcher that proposes several points quicker than one after another."""

    def suggest_many(self, trial_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Proposes a point for each trial, before the scores of any of them are known."""


def ask(searcher: Searcher, trial_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Returns a point for each trial, asked for at once where the searcher can do so."""
    if isinstance(searcher, SuggestsMany):
        return searcher.suggest_many(trial_ids)
    return [searcher.suggest(trial_id) for trial_id in trial_ids]


def import_searcher(algorithm: str) -> None:
    """Imports what an algorithm needs, which takes about a second."""
    if algorithm == "hyperopt":
        _hyperopt_search()
    elif algorithm == "optuna":
        importlib.import_module("ray.tune.search.optuna")


def domains_of(space: SearchSpace) -> Domains:
    """Returns Tune's domain for each path of a space; a choice is drawn by its option's index."""
    return {path: _domain(entry) for path, entry in space.paths().items()}


def _domain(entry: Distribution) -> Any:
    if isinstance(entry, Choice):
        return tune.choice(list(range(len(entry.options))))
    if isinstance(entry, Int):
        return tune.randint(entry.low, entry.high + 1)
    return (tune.loguniform if entry.log else tune.uniform)(entry.low, entry.high)


def _hyperopt_search() -> type[Searcher]:
    """Returns HyperOptSearch made for packs, or Ray's own where it is not the one that was read."""
    slower = "HyperOptSearch proposes as it is, more slowly after hundreds of trials"
    if not all(is_known(library, read_in, slower) for library, read_in in READ_IN.items()):
        from ray.tune.search.hyperopt import HyperOptSearch

        own: type[Searcher] = HyperOptSearch
        return own
    from mlops.tuning.search.tpe import PackHyperOptSearch

    return PackHyperOptSearch


def _hyperopt(
    domains: Domains, mode: str, initial_points: int, first: list[Point], seed: int
) -> Searcher:
    searcher = _hyperopt_search()(
        points_to_evaluate=[dict(point) for point in first] or None,
        n_initial_points=initial_points,
        random_state_seed=seed,
    )
    searcher.set_search_properties(SCORE, mode, dict(domains))
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
    searcher.set_search_properties(SCORE, mode, dict(domains))
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
