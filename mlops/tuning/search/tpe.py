"""HyperOptSearch for thousands of trials: several points a model, and a bounded history.

hyperopt builds its model, a tree-structured Parzen estimator (Bergstra et al., "Algorithms for
Hyper-Parameter Optimization", NIPS 2011), anew for each point and from all trials: after 3,000 of
them a point costs 76 ms, where a small network trains in 2. Here a model proposes several points,
and remembers the trials that matter. Its parts are hyperopt's own, evaluated for more candidates.

Importing this imports hyperopt, which takes about a second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from hyperopt import Domain, Trials, pyll, rand, tpe
from hyperopt.base import miscs_update_idxs_vals, spec_from_misc
from hyperopt.pyll import scope
from ray.tune.search.hyperopt import HyperOptSearch

# Points from one model, at most, and trials for each of them. The points of one model do not know
# of each other and mostly agree in their choices, so it has to be a small part of the study.
POINTS_A_MODEL = 8
TRIALS_A_POINT = 128
# Trials that a model is built from: the most recent ones, and the best of all.
RECENT = 400
# hyperopt calls ceil(GAMMA * sqrt(trials)) trials good, and never more than BEST of them.
GAMMA = 0.25
BEST = 25
# Draws that a point is the best of.
CANDIDATES = 24

Docs = list[dict[str, Any]]


class PackHyperOptSearch(HyperOptSearch):
    """HyperOptSearch that proposes the points of a pack together, at a cost that does not grow.

    A pack is proposed in parts: each part's points come from one model, for which the parts before
    are bad trials, as everything without a score is for hyperopt. A part has one point for each
    `trials_a_point` trials there are, from one to `points_a_model`. So what is proposed is at first
    what HyperOptSearch would.

    A model knows the `recent` last trials and the best of all; how many of them count as good is
    what it would be had none been forgotten.

    Every domain must be a number or the index of an option, and no value depend on another: points
    are not resolved any further.

    Args:
        points_a_model: Points proposed from one model, at most.
        trials_a_point: Trials that allow for another point from one model.
        recent: Trials remembered beside the best.
        n_initial_points: Random points before there is a model.
        options: HyperOptSearch's.
    """

    def __init__(
        self,
        *,
        points_a_model: int = POINTS_A_MODEL,
        trials_a_point: int = TRIALS_A_POINT,
        recent: int = RECENT,
        n_initial_points: int = 20,
        **options: Any,
    ) -> None:
        super().__init__(n_initial_points=n_initial_points, gamma=GAMMA, **options)
        self._points_a_model, self._trials_a_point = points_a_model, trials_a_point
        self._recent = recent
        # No model without a trial.
        self._initial = max(1, n_initial_points)
        self._n_trials = 0
        self._models: dict[bool, _Model] = {}

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Proposes a point."""
        return self.suggest_many([trial_id])[0]

    def suggest_many(self, trial_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Proposes a point for each trial, before the scores of any of them are known."""
        left, points = list(trial_ids), []
        while left:
            part = left[: self._size_of_part()]
            del left[: len(part)]
            if self._points_to_evaluate > 0:
                points.append(super().suggest(part[0]))
            else:
                points += self._propose(part)
            self._n_trials += len(part)
        return points

    def _size_of_part(self) -> int:
        if self._points_to_evaluate > 0 or self._n_trials < self._initial:
            return 1
        return min(max(1, self._n_trials // self._trials_a_point), self._points_a_model)

    def _propose(self, trial_ids: list[str]) -> list[dict[str, Any]]:
        trials = self._hpopt_trials
        self._forget()
        ids = trials.new_trial_ids(len(trial_ids))
        seed = self.rstate.randint(2**31 - 1)
        if self._n_trials < self._initial:
            docs = rand.suggest(ids, self.domain, trials, seed)
        else:
            several = len(ids) > 1
            if several not in self._models:
                self._models[several] = _Model(self.domain, at_once=several)
            docs = self._models[several].suggest(ids, trials, self._n_trials, seed)
        trials.insert_trial_docs(docs)
        trials.refresh()
        for trial_id, doc in zip(trial_ids, docs, strict=True):
            self._live_trial_mapping[trial_id] = (doc["tid"], doc)
        return [spec_from_misc(doc["misc"]) for doc in docs]

    def _forget(self) -> None:
        """Drops the trials that a model need not know."""
        trials = self._hpopt_trials
        ended = [doc for doc in trials.trials if "loss" in doc["result"]]
        if len(ended) > self._recent + BEST:
            best = sorted(ended, key=lambda doc: (doc["result"]["loss"], doc["tid"]))[:BEST]
            ended.sort(key=lambda doc: doc["tid"])
            kept = {doc["tid"] for doc in best + ended[-self._recent :]}
            trials._dynamic_trials = [
                doc for doc in trials.trials if "loss" not in doc["result"] or doc["tid"] in kept
            ]
            trials.refresh()


class _Model:
    """hyperopt's model of good and bad trials, which any number of points can be drawn from.

    Args:
        domain: hyperopt's form of the search space.
        at_once: Whether to draw candidates all at once; else one by one, hyperopt's own sequence.
    """

    def __init__(self, domain: Domain, at_once: bool) -> None:
        self._domain = domain
        # Places in the graph for what is known when points are wanted.
        self._ids, self._vals, self._loss_ids, self._losses, self._gamma = (
            pyll.Literal() for _ in range(5)
        )
        posterior = tpe.build_posterior(
            domain.vh.v_expr,
            domain.vh.idxs_by_label(),
            domain.vh.vals_by_label(),
            self._ids,
            self._vals,
            self._loss_ids,
            self._losses,
            self._gamma,
            pyll.Literal(1.0),
        )
        self._posterior = pyll.as_apply(posterior)
        renamed = {"broadcast_best": "broadcast_best_of_each", "ap_split_trials": "split_at_once"}
        if at_once:
            renamed |= {"GMM1": "mixture_at_once", "LGMM1": "log_mixture_at_once"}
        for node in pyll.dfs(self._posterior):
            node.name = renamed.get(node.name, node.name)

    def suggest(self, new_ids: list[int], trials: Trials, n_trials: int, seed: int) -> Docs:
        """Returns a trial for each new id; for one of them, what `tpe.suggest` does.

        Args:
            new_ids: Numbers of the trials to propose.
            trials: What the model is built from.
            n_trials: How many trials there were, those forgotten included.
            seed: Seed of the draws.
        """
        docs, domain = trials.trials, self._domain
        ids = [doc["tid"] for doc in docs]
        # hyperopt's own `miscs_to_idxs_vals` allows for absent values and is a fifth of the whole.
        values = [doc["misc"]["vals"] for doc in docs]
        first = max(*ids, *new_ids) + 2
        drawn = list(range(first, first + CANDIDATES * len(new_ids)))
        memo = {
            domain.s_new_ids: drawn,
            domain.s_rng: np.random.default_rng(seed),
            self._ids: dict.fromkeys(domain.params, ids),
            self._vals: {path: [point[path][0] for point in values] for path in domain.params},
            self._loss_ids: ids,
            self._losses: [float(doc["result"].get("loss", math.inf)) for doc in docs],
            self._gamma: GAMMA * math.sqrt(n_trials / len(docs)),
        }
        idxs, vals = pyll.rec_eval(
            self._posterior, memo=memo, memo_gc=False, print_node_on_error=False
        )
        miscs = [{"tid": i, "cmd": domain.cmd, "workdir": domain.workdir} for i in new_ids]
        proposed = dict(zip(drawn[::CANDIDATES], new_ids, strict=True))
        miscs_update_idxs_vals(miscs, idxs, vals, False, proposed)
        results = [domain.new_result() for _ in new_ids]
        return trials.new_trial_docs(new_ids, [None] * len(new_ids), results, miscs)


@scope.define
def split_at_once(
    ids: Any, vals: Any, loss_ids: Any, losses: Any, gamma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Divides the values of good trials from those of bad ones.

    hyperopt's `ap_split_trials` looks each trial up by its id; here both lists have the same order.

    Args:
        ids: Of the trials: [trials].
        vals: Their values of one hyperparameter.
        loss_ids: The same ids.
        losses: Their losses.
        gamma: The good ones are `gamma * sqrt(trials)`, `BEST` at most.
    """
    n_good = min(math.ceil(gamma * math.sqrt(len(losses))), BEST)
    good = np.zeros(len(losses), bool)
    good[np.argsort(losses)[:n_good]] = True
    values = np.asarray(vals)
    return values[good], values[~good]


@scope.define
def mixture_at_once(
    *mixture: np.ndarray,
    low: float,
    high: float,
    q: float | None = None,
    rng: Any = None,
    size: Any = (),
) -> np.ndarray:
    """Draws from a mixture of normal distributions, within bounds.

    hyperopt's `GMM1` does so one by one, which is a quarter of the whole.

    Args:
        mixture: Weights of the components, 1 in all, means, standard deviations: [components] each.
        low: Lower bound.
        high: Upper bound, itself left out.
        q: What to round to a multiple of; None for no rounding.
        rng: numpy's generator.
        size: Shape of the samples.
    """
    weights, mus, sigmas = mixture
    samples = np.empty(int(np.prod(size)))
    left = np.arange(len(samples))
    while len(left):
        component = rng.choice(len(weights), size=len(left), p=weights)
        drawn = rng.normal(mus[component], sigmas[component])
        inside = (low <= drawn) & (drawn < high)
        samples[left[inside]] = drawn[inside]
        left = left[~inside]
    samples = samples.reshape(size)
    return samples if q is None else np.round(samples / q) * q


@scope.define
def log_mixture_at_once(
    *mixture: np.ndarray,
    low: float,
    high: float,
    rng: Any = None,
    size: Any = (),
) -> np.ndarray:
    """Draws what has a logarithm from `mixture_at_once`: hyperopt's `LGMM1`."""
    return np.exp(mixture_at_once(*mixture, low=low, high=high, rng=rng, size=size))


@scope.define
def broadcast_best_of_each(samples: Any, good: np.ndarray, bad: np.ndarray) -> Any:
    """Replaces each `CANDIDATES` samples by the one of them that good trials favour most.

    hyperopt's `broadcast_best` does so for all samples together.

    Args:
        samples: [points * CANDIDATES].
        good: Log-density of the good trials at the samples.
        bad: Log-density of the others.
    """
    gain = (good - bad).reshape(-1, CANDIDATES)
    best = np.argmax(gain, axis=1)[:, None]
    of_each = np.asarray(samples).reshape(-1, CANDIDATES)
    return np.repeat(np.take_along_axis(of_each, best, axis=1), CANDIDATES)
