"""Does a long search lose by a bounded history and several points a model?

    python -m benchmarks.search_at_scale                    # 1,000 trials, 5 seeds
    python -m benchmarks.search_at_scale --seeds 1 --trials 300 --no-save

The same search, by packs, with three searchers: ours, Ray Tune's HyperOptSearch as it is, and at
random. Trials are trained, for a few epochs on the table of `search_quality`; nothing is recorded.
Figures, paired by seed: the best validation accuracy, and the mean of the last quarter of the
trials, which says how well the search knows by then where to look.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np
import yaml
from ray.tune.search import Searcher

from benchmarks import report
from benchmarks.contenders import SEED_TASK
from benchmarks.report import Row
from benchmarks.search_quality import make_task, quality_row
from mlops.configuration.hyperparameters import Hyperparameters
from mlops.nn.records import TrialResult
from mlops.nn.tasks.classification import Classification
from mlops.nn.training import fit
from mlops.settings.study import TuneSettings
from mlops.tuning.search.packing import Packing
from mlops.tuning.search.packs import PackSearch
from mlops.tuning.search.proposals import Proposals
from mlops.tuning.search.searchers import SCORE, SEARCHERS

OURS, HYPEROPT, RANDOM = "hyperopt", "hyperopt as it is", "random"

Table = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Classification]
"""x_train, y_train, x_val, y_val, classes."""
PACKING = Packing(pack_size=48, packs_in_flight=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    SEARCHERS[HYPEROPT] = _hyperopt_as_it_is
    table = _table()
    scores: dict[str, list[list[float]]] = {OURS: [], HYPEROPT: [], RANDOM: []}
    seconds = dict.fromkeys(scores, 0.0)
    for seed in range(args.seeds):
        for algorithm in scores:
            found, spent = search(algorithm, table, args.trials, args.epochs, seed)
            scores[algorithm].append(found)
            seconds[algorithm] += spent / args.seeds
            told = f"best {max(found):.4f}, last quarter {lately(found):.4f}, search {spent:.1f} s"
            print(f"seed {seed}, {algorithm}: {told}", file=sys.stderr, flush=True)
    table = rows_of(scores, seconds, args.trials)
    best = {name: [max(found) for found in runs] for name, runs in scores.items()}
    report.finish("search_at_scale", "Long searches", table, {"best": best}, save=not args.no_save)


def search(
    algorithm: str, table: Table, trials: int, epochs: int, seed: int
) -> tuple[list[float], float]:
    """Run a search and return its trials' scores in order, and the searcher's seconds."""
    given = TuneSettings(**yaml.safe_load(SEED_TASK.read_text()), seed=seed)
    default = Hyperparameters.from_dict({**given.default_configuration.to_dict(), "epochs": epochs})
    proposals = Proposals(given.search_space, default, algorithm=algorithm, seed=seed)
    searcher = PackSearch(proposals, max_evals=trials, packing=PACKING, workers=1)
    scores: dict[int, float] = {}
    spent, began = 0.0, time.monotonic()
    while isinstance(pack := searcher.suggest("pack"), dict):
        spent += time.monotonic() - began
        found = train(pack["trials"], table, seed)
        scores |= found
        began = time.monotonic()
        searcher.on_trial_complete("pack", {"scores": list(found.items())})
    originals = map(proposals.original, range(trials))
    return [scores[number] for number in originals], spent


def train(trials: Sequence[Mapping[str, Any]], table: Table, seed: int) -> dict[int, float]:
    """Train a pack and return its scores by trial."""
    new = [trial for trial in trials if trial["duplicate_of"] is None]
    if not new:
        return {}
    members = [Hyperparameters.from_dict(trial["params"]) for trial in new]
    numbers = [trial["number"] for trial in new]
    events = fit(members, *table, seed=seed, numbers=numbers)
    return {e.trial: e.score or 0.0 for e in events if isinstance(e, TrialResult)}


def lately(scores: Sequence[float]) -> float:
    """Return the mean of the last quarter."""
    return mean(scores[-len(scores) // 4 :])


def rows_of(
    scores: Mapping[str, Sequence[Sequence[float]]], seconds: Mapping[str, float], trials: int
) -> list[Row]:
    best = {name: [max(found) for found in runs] for name, runs in scores.items()}
    late = {name: [lately(found) for found in runs] for name, runs in scores.items()}
    after, than = f"after {trials:,} trials", "ours less hyperopt's"
    gained = mean(late[OURS]) - mean(late[RANDOM])
    return [
        quality_row(f"best validation accuracy {after}, {than}", best[OURS], best[HYPEROPT]),
        quality_row(f"mean of the last quarter {after}, {than}", late[OURS], late[HYPEROPT]),
        Row("mean of the last quarter, ours less random's", "> 0", f"{gained:+.4f}", gained > 0),
        Row(
            "searcher's time, s",
            "-",
            ", ".join(f"{name} {spent:.1f}" for name, spent in seconds.items()),
        ),
    ]


def _table() -> Table:
    x, y = make_task()
    x = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    return x[:2400], y[:2400], x[2400:], y[2400:], Classification(range(int(y.max()) + 1))


def _hyperopt_as_it_is(
    domains: Mapping[str, Any], mode: str, initial_points: int, first: list[Any], seed: int
) -> Searcher:
    from ray.tune.search.hyperopt import HyperOptSearch

    searcher = HyperOptSearch(
        points_to_evaluate=[dict(point) for point in first] or None,
        n_initial_points=initial_points,
        random_state_seed=seed,
    )
    searcher.set_search_properties(SCORE, mode, dict(domains))
    return searcher


if __name__ == "__main__":
    main()
