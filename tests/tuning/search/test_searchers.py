"""Searchers by themselves, without packs: what they propose, and what hyperopt's model knows."""

from __future__ import annotations

import copy
import json
import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hyperopt import tpe as hyperopts_tpe
from hyperopt.pyll import scope
from ray.tune.search import Searcher
from ray.tune.search.hyperopt import HyperOptSearch
from spaces import CONDITIONAL, SPACE

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.configuration.space import SearchSpace
from mlops.tracking.study.record import TrialRecord
from mlops.tuning import known as known_versions
from mlops.tuning.search import tpe
from mlops.tuning.search.packing import Packing
from mlops.tuning.search.packs import PackSearch
from mlops.tuning.search.proposals import Proposals
from mlops.tuning.search.searchers import READ_IN, SCORE, SEARCHERS, ask, domains_of
from mlops.tuning.search.tpe import BEST, CANDIDATES, PackHyperOptSearch

Params = dict[str, Any]

SPACES = pytest.mark.parametrize("space", [SPACE, CONDITIONAL], ids=["flat", "conditional"])
DEFAULT = Hyperparameters(dropout=0.2, weight_decay=0.0)


def make(
    kind: type[HyperOptSearch] = PackHyperOptSearch,
    space: SearchSpace = SPACE,
    *,
    mode: str = "max",
    first: Sequence[Params] = (),
    initial: int = 5,
    seed: int = 3,
    **options: Any,
) -> Any:
    searcher = kind(
        points_to_evaluate=copy.deepcopy(list(first)) or None,
        n_initial_points=initial,
        random_state_seed=seed,
        **options,
    )
    searcher.set_search_properties(SCORE, mode, dict(domains_of(space)))
    return searcher


def tell(searcher: Searcher, trial: int | str, score: float) -> None:
    searcher.on_trial_complete(str(trial), {SCORE: score, "training_iteration": 1})


def bowl(point: Params) -> float:
    return -((math.log10(point["learning_rate"]) + 2.5) ** 2) - (point["hidden_dims"] != 2)


def study(
    searcher: Any,
    n_packs: int,
    size: int,
    score: Callable[[Params], float] = bowl,
    order: random.Random | None = None,
) -> list[Params]:
    """Every pack is told before the next is asked for, in any order."""
    points = []
    for pack in range(n_packs):
        ids = [str(pack * size + i) for i in range(size)]
        proposed = dict(zip(ids, searcher.suggest_many(ids), strict=True))
        points += proposed.values()
        for trial_id in order.sample(ids, size) if order else ids:
            tell(searcher, trial_id, score(proposed[trial_id]))
    return points


def known(searcher: Any) -> set[int]:
    return {doc["tid"] for doc in searcher._hpopt_trials.trials}


@pytest.mark.parametrize("with_first", [True, False], ids=["default inside", "default outside"])
@SPACES
def test_one_point_at_a_time_is_hyperopts_own(space: SearchSpace, with_first: bool) -> None:
    first = space.locate(DEFAULT.to_dict()) if with_first else None
    theirs, ours = (
        make(kind, space, first=[first] if first else []) for kind in (HyperOptSearch, tpe_search)
    )
    chance, pending = random.Random(0), []
    for number in range(70):
        assert ours.suggest(str(number)) == theirs.suggest(str(number))
        pending.append(number)
        if len(pending) > 4:
            ended, score = pending.pop(chance.randrange(5)), chance.random()
            for searcher in (ours, theirs):
                tell(searcher, ended, score)


def tpe_search(**options: Any) -> PackHyperOptSearch:
    return PackHyperOptSearch(**options, points_a_model=8, trials_a_point=1)


def test_the_packs_of_200_trials_are_hyperopts_own() -> None:
    """Each point has a model that knows all, those before in its pack as bad trials."""
    ours, theirs = make(), make(HyperOptSearch)
    for pack in range(20):
        ids = [str(pack * 10 + i) for i in range(10)]
        points = ours.suggest_many(ids)
        assert points == [theirs.suggest(trial_id) for trial_id in ids]
        for searcher in (ours, theirs):
            for trial_id, point in zip(ids, points, strict=True):
                tell(searcher, trial_id, bowl(point))


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the parts that models have proposed."""
    sizes: list[int] = []
    suggest = tpe._Model.suggest

    def noted(self: Any, new_ids: list[int], *rest: Any) -> Any:
        sizes.append(len(new_ids))
        return suggest(self, new_ids, *rest)

    monkeypatch.setattr(tpe._Model, "suggest", noted)
    return sizes


def test_parts_grow_with_the_study(parts: list[int]) -> None:
    searcher = make(points_a_model=4, trials_a_point=10, initial=5)
    study(searcher, 8, 10)
    at_random_and_one_by_one = [1] * 15  # 5 initial points had no model
    twos, threes, fours = [2] * 5, [3, 3, 3, 1], [4, 4, 2]
    assert parts == [*at_random_and_one_by_one, *twos, *threes, *fours * 4]


def test_the_initial_points_are_at_random(parts: list[int]) -> None:
    study(make(initial=30, trials_a_point=4), 3, 10)
    assert parts == []
    study(make(initial=23, trials_a_point=4), 3, 10)
    assert parts == [5, 2]


@SPACES
def test_points_to_evaluate_come_first_and_once(space: SearchSpace) -> None:
    wanted = [space.locate(DEFAULT.to_dict()) for _ in range(4)]
    for i, point in enumerate(wanted):
        assert point is not None
        point["learning_rate"] = 1e-3 * (i + 1)
    searcher = make(space=space, first=wanted, initial=0, trials_a_point=1)
    points = searcher.suggest_many([str(i) for i in range(9)])
    assert len(points) == 9
    assert points[:4] == wanted
    assert all(point not in wanted for point in points[4:])


@SPACES
def test_points_from_one_model_differ_and_are_complete(space: SearchSpace) -> None:
    searcher = make(space=space, points_a_model=8, trials_a_point=1)
    study(searcher, 2, 8, lambda point: -point["learning_rate"])
    points = searcher.suggest_many([f"next-{i}" for i in range(8)])
    assert all(set(point) == set(space.paths()) for point in points)
    assert len({point["learning_rate"] for point in points}) == 8
    for point in points:
        assert space.locate({**DEFAULT.to_dict(), **space.resolve(point)}) is not None


@pytest.mark.parametrize("q", [None, 1.0])
def test_drawing_at_once_is_drawing_from_hyperopts_mixture(q: float | None) -> None:
    """The share of samples below each cut, within 5 standard errors; a bound halves the first."""
    mixture = [np.array(row) for row in ([0.5, 0.3, 0.2], [0.0, 4.0, 9.0], [3.0, 0.3, 4.0])]
    drawn = [
        scope._impls[name](
            *mixture, low=0.0, high=10.0, q=q, rng=np.random.default_rng(1), size=(4000,)
        )
        for name in ("mixture_at_once", "GMM1")
    ]
    for samples in drawn:
        assert samples.shape == (4000,)
        assert samples.min() >= 0.0 and samples.max() <= 10.0
        assert q is None or np.array_equal(samples, np.round(samples))
    cuts = np.arange(11) + 0.25
    shares = [np.searchsorted(np.sort(samples), cuts) / 4000 for samples in drawn]
    assert np.abs(shares[0] - shares[1]).max() < 5 * math.sqrt(0.25 * 2 / 4000)
    logs = scope._impls["log_mixture_at_once"](
        *mixture, low=0.0, high=10.0, rng=np.random.default_rng(1), size=(4000,)
    )
    if q is None:
        assert np.array_equal(logs, np.exp(drawn[0]))


def test_each_point_is_the_best_of_its_own_candidates() -> None:
    chance = np.random.default_rng(0)
    samples, good, bad = chance.normal(size=(3, 5 * CANDIDATES))
    best = scope._impls["broadcast_best_of_each"]
    groups = zip(*(np.split(array, 5) for array in (samples, good, bad)), strict=True)
    expected = [hyperopts_tpe.broadcast_best(*group) for group in groups]
    assert np.array_equal(best(samples, good, bad), np.concatenate(expected))
    whole = np.arange(CANDIDATES * 2)
    assert best(whole, whole * 1.0, whole * 0.0).dtype == whole.dtype


def test_hyperopts_model_is_left_as_it_is() -> None:
    """Whoever uses hyperopt in the same process gets the best of all, as ever."""
    study(make(points_a_model=4, trials_a_point=1), 4, 8)
    theirs = make(HyperOptSearch)
    again = make(HyperOptSearch)
    for number in range(12):
        assert theirs.suggest(str(number)) == again.suggest(str(number))
    assert scope._impls["broadcast_best"]([1, 2], np.array([0, 1]), np.array([0, 0])) == [2, 2]


@pytest.mark.parametrize(("mode", "sign"), [("max", 1.0), ("min", -1.0)])
def test_a_history_keeps_the_best_the_last_and_the_pending(mode: str, sign: float) -> None:
    """The best are the first 30 trials, numbers 29 down to 0; of equals the first counts."""
    recent, n_trials = 12, 100
    searcher = make(mode=mode, recent=recent, trials_a_point=4)
    searcher.suggest_many([str(i) for i in range(n_trials)])
    pending = {50, 51}
    for trial in range(n_trials):
        if trial not in pending:
            tell(searcher, trial, sign * (trial if trial < 30 else -1.0))
    searcher.suggest("next")
    kept = {*range(5, 30), *range(n_trials - recent, n_trials), n_trials, *pending}
    assert known(searcher) == kept
    # What was forgotten was forgotten for good, but the late ones are still waited for.
    tell(searcher, 50, sign * 99.0)
    tell(searcher, "next", sign * 98.0)
    searcher.suggest("one more")
    assert {50, n_trials} <= known(searcher)
    assert not {5, 6} & known(searcher)
    assert {*range(7, 30)} <= known(searcher)


def test_of_equals_the_first_are_kept() -> None:
    searcher = make(recent=10, trials_a_point=4)
    study(searcher, 10, 10, lambda point: 0.5)
    searcher.suggest("next")
    assert known(searcher) == {*range(BEST), *range(90, 101)}


@pytest.fixture
def good(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many trials each model has called good."""
    counts: list[int] = []
    split = scope._impls["split_at_once"]

    def noted(*arguments: Any, **named: Any) -> Any:
        below, above = split(*arguments, **named)
        counts.append(len(below))
        return below, above

    monkeypatch.setitem(scope._impls, "split_at_once", noted)
    yield counts


@pytest.mark.parametrize("recent", [10, 10**6])
def test_forgetting_does_not_change_how_many_are_good(recent: int, good: list[int]) -> None:
    searcher = make(recent=recent, initial=400)
    study(searcher, 40, 10)
    searcher.suggest("next")
    assert good == [5] * len(SPACE.paths())  # 0.25 * sqrt(400)
    assert (len(known(searcher)) < 50) == (recent == 10)


@pytest.mark.parametrize("how", ["at once", "shuffled"])
@SPACES
def test_the_same_study_proposes_the_same(space: SearchSpace, how: str) -> None:
    def run(order: random.Random | None, seed: int = 1) -> list[Params]:
        searcher = make(space=space, seed=seed, recent=20, points_a_model=4, trials_a_point=8)
        return study(searcher, 12, 8, lambda point: -point["learning_rate"], order)

    orders = [None, None] if how == "at once" else [random.Random(1), random.Random(2)]
    assert run(orders[0]) == run(orders[1]) == run(None)
    assert run(None, seed=2)[5:] != run(None)[5:]


def use_short_memory(space: SearchSpace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `short` a searcher that proposes several points a model and forgets soon."""

    def short_memory(
        domains: Any, mode: str, initial_points: int, first: list[Params], seed: int
    ) -> Searcher:
        return make(
            space=space, mode=mode, first=first, recent=12, points_a_model=4, trials_a_point=8
        )

    monkeypatch.setitem(SEARCHERS, "short", short_memory)


@SPACES
def test_timing_does_not_change_a_long_search(
    space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By packs, with parts of several points and trials forgotten."""

    use_short_memory(space, monkeypatch)

    def run(order: random.Random | None) -> list[Params]:
        packing = Packing(6, 3)
        proposals = Proposals(space, DEFAULT, algorithm="short")
        search = PackSearch(proposals, max_evals=120, packing=packing, workers=3)
        packs: list[Params] = []
        under_way: list[int] = []
        while (pack := search.suggest(f"pack-{len(packs)}")) != Searcher.FINISHED or under_way:
            if isinstance(pack, dict):
                under_way.append(len(packs))
                packs.append(pack)
                if len(under_way) < 3 and not (order and order.random() < 0.3):
                    continue
            ended = under_way.pop(order.randrange(len(under_way)) if order else 0)
            trained = [t for t in packs[ended]["trials"] if t["duplicate_of"] is None]
            scores = [[t["number"], -t["params"]["learning_rate"]] for t in trained]
            search.on_trial_complete(f"pack-{ended}", {"scores": scores})
        return packs

    in_turn = run(None)
    assert len(in_turn) == 20
    for shuffle in range(3):
        assert run(random.Random(shuffle)) == in_turn


@pytest.mark.parametrize("end", [36, 37, 39, 41])
def test_an_extended_long_search_is_the_one_asked_for_at_once(
    end: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the first one ended, within a pack and within the points of one model."""
    use_short_memory(SPACE, monkeypatch)

    def run(**options: Any) -> list[Params]:
        proposals, trials = Proposals(SPACE, DEFAULT, algorithm="short"), []
        search = PackSearch(proposals, packing=Packing(6, 2), workers=1, **options)
        assert not proposed
        while isinstance(pack := search.suggest("pack"), dict):
            trials += pack["trials"]
            trained = [t for t in pack["trials"] if t["duplicate_of"] is None]
            scores = [[t["number"], -t["params"]["learning_rate"]] for t in trained]
            search.on_trial_complete("pack", {"scores": scores})
        return trials

    proposed: list[str] = []
    at_once, first = run(max_evals=60), run(max_evals=end)
    assert first == at_once[:end]
    recorded = {
        trial["number"]: TrialRecord(
            json.loads(json.dumps(trial["params"])),
            duplicate_of=trial["duplicate_of"],
            result={"score": -trial["params"]["learning_rate"]},
        )
        for trial in first
    }
    extended = run(
        max_evals=60,
        recorded=recorded,
        ends=[end],
        when_proposed=lambda: proposed.append("all"),
    )
    assert extended == at_once[end:]
    assert proposed == ["all"]


def test_a_long_search_learns() -> None:
    gains = []
    for seed in range(3):
        searcher = make(seed=seed, recent=40, points_a_model=8, trials_a_point=4, initial=20)
        values = [bowl(point) for point in study(searcher, 20, 10)]
        gains.append(sum(values[-100:]) / 100 - sum(values[:20]) / 20)
    assert sum(gains) / len(gains) > 0.2


def test_asking_for_many_is_asking_for_each_where_a_searcher_knows_no_better() -> None:
    class Plain(Searcher):
        def suggest(self, trial_id: str) -> Params:
            return {"of": trial_id}

    class AtOnce(Plain):
        def suggest_many(self, trial_ids: Sequence[str]) -> list[Params]:
            return [{"of": "-".join(trial_ids)}] * len(trial_ids)

    assert ask(Plain(), ["4", "5"]) == [{"of": "4"}, {"of": "5"}]
    assert ask(AtOnce(), ["4", "5"]) == [{"of": "4-5"}] * 2
    assert ask(make(), []) == []


@pytest.mark.parametrize("algorithm", ["hyperopt", "optuna", "random"])
@SPACES
def test_every_algorithm_begins_with_the_default(algorithm: str, space: SearchSpace) -> None:
    first = space.locate(DEFAULT.to_dict())
    assert first is not None
    searcher = SEARCHERS[algorithm](domains_of(space), "max", 4, [first], 7)
    points = ask(searcher, [str(i) for i in range(6)])
    assert points[0] == first
    assert len(points) == 6
    assert all(set(point) == set(space.paths()) for point in points)


@pytest.mark.parametrize("library", READ_IN)
def test_where_insides_are_not_those_that_were_read_hyperopt_proposes_as_it_is(
    library: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first hundred of trials are the same."""

    def proposed() -> list[Params]:
        proposals, trials = Proposals(SPACE, DEFAULT), []
        search = PackSearch(proposals, max_evals=40, packing=Packing(4, 2), workers=1)
        while isinstance(pack := search.suggest("pack"), dict):
            trials += pack["trials"]
            scores = [[t["number"], bowl(t["params"])] for t in pack["trials"]]
            search.on_trial_complete("pack", {"scores": scores})
        return trials

    ours = proposed()
    assert capsys.readouterr().err == ""
    monkeypatch.setitem(READ_IN, library, "0.1")
    known_versions._tell.cache_clear()
    searcher = SEARCHERS["hyperopt"](domains_of(SPACE), "max", 4, [], 7)
    assert type(searcher) is HyperOptSearch
    assert proposed() == ours
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"{library} is [\d.]+, and 0\.1 was read: HyperOptSearch .*", line)


@pytest.mark.parametrize(
    ("read_in", "is_known"),
    [("2.60", True), ("2.60.0", True), ("2.6", False), ("2.61", False), ("2.60.1", False)],
)
def test_a_version_is_known_by_whole_numbers(
    read_in: str, is_known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_versions, "version", lambda library: "2.60.0")
    assert known_versions.is_known("ray", read_in, "it is done otherwise") == is_known
