"""PackSearch, driven by hand: whatever the timing, the same study proposes the same trials."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from ray.tune.search import Searcher
from spaces import CONDITIONAL, SPACE

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.configuration.space import SearchSpace
from mlops.errors import InputError
from mlops.nn.tasks.metrics import METRICS, Metric
from mlops.tracking.study.record import TrialRecord
from mlops.tuning.search.packing import Packing
from mlops.tuning.search.packs import PackSearch
from mlops.tuning.search.proposals import SEARCHERS, Proposals

ALGORITHMS = ("hyperopt", "optuna", "random")
DEFAULT = Hyperparameters()
PACKS_OF_3 = Packing(3, 3)
TINY = SearchSpace.parse({"batch_size": {"choice": [16, 32]}})
BY_MODE = {
    "max": METRICS["val_accuracy"],
    "min": METRICS["val_loss"],
    "max, below 0 too": Metric("r2", "max", -1e3),
}

Params = dict[str, Any]
Score = Callable[[Params], float | None]


def bowl(params: Params) -> float:
    """Best (1.0) at a learning rate of 3e-3, dropout 0.4 and two layers."""
    far = (math.log10(params["learning_rate"]) + 2.5) ** 2 + 4 * (params["dropout"] - 0.4) ** 2
    return 1.0 - far - 0.1 * (len(params["hidden_dims"]) == 1)


def make(
    space: SearchSpace | None = SPACE,
    *,
    max_evals: int = 24,
    packing: Packing = PACKS_OF_3,
    default: Hyperparameters = DEFAULT,
    kind: type[PackSearch] = PackSearch,
    **options: Any,
) -> PackSearch:
    if "mode" in options:
        options["metric"] = BY_MODE[options.pop("mode")]
    how = {"algorithm", "initial_points", "metric", "seed"} & options.keys()
    proposals = Proposals(space, default, **{name: options.pop(name) for name in how})
    options = {"workers": packing.packs_in_flight, **options}
    return kind(proposals, max_evals=max_evals, packing=packing, **options)


def report_of(pack: Params, score: Score) -> Params:
    """The last report of a pack as the searcher gets it."""
    trained = [trial for trial in pack["trials"] if trial["duplicate_of"] is None]
    scores = [[t["number"], score(t["params"])] for t in trained]
    return {"scores": scores, "done": True, "time_total_s": 1.0}


def drive(
    search: PackSearch, score: Score = bowl, order: random.Random | None = None
) -> list[Params]:
    """Runs a study; `order` picks how much is asked for and which pack ends next, else in turn."""
    packs: list[Params] = []
    under_way: list[int] = []
    while True:
        wanted = order.randint(0, 4) if order and under_way else 10**6
        while wanted and isinstance(pack := search.suggest(f"trial-{len(packs)}"), dict):
            under_way.append(len(packs))
            packs.append(pack)
            wanted -= 1
        if not under_way:
            assert search.suggest("one more") == Searcher.FINISHED
            return packs
        ended = under_way.pop(order.randrange(len(under_way)) if order else 0)
        search.on_trial_complete(f"trial-{ended}", report_of(packs[ended], score))


def trials_of(packs: list[Params]) -> list[Params]:
    return [trial for pack in packs for trial in pack["trials"]]


class Recorder(Searcher):
    """Proposes given points in turn and notes what it is asked and told."""

    def __init__(self, points: list[Params]) -> None:
        super().__init__()
        self.points = points
        self.events: list[tuple[Any, ...]] = []

    def suggest(self, trial_id: str) -> Params:
        self.events.append(("asked", int(trial_id)))
        return self.points[
            (len([e for e in self.events if e[0] == "asked"]) - 1) % len(self.points)
        ]

    def on_trial_complete(
        self, trial_id: str, result: Params | None = None, error: bool = False
    ) -> None:
        assert result is not None
        self.events.append(("told", int(trial_id), result["score"]))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[PackSearch, Recorder]]:
    """A PackSearch around a Recorder."""

    def made(points: list[Params], space: SearchSpace = TINY, **options: Any) -> Any:
        recorder = Recorder(points)
        monkeypatch.setitem(SEARCHERS, "recorder", lambda *_: recorder)
        return make(space, algorithm="recorder", **options), recorder

    return made


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("space", [SPACE, CONDITIONAL], ids=["flat", "conditional"])
def test_a_study_proposes_what_it_should(algorithm: str, space: SearchSpace) -> None:
    default = Hyperparameters(dropout=0.2, weight_decay=0.0)
    packs = drive(make(space, algorithm=algorithm, default=default, max_evals=20))
    assert [pack["pack"] for pack in packs] == list(range(7))
    assert [len(pack["trials"]) for pack in packs] == [3] * 6 + [2]
    trials = trials_of(packs)
    assert [trial["number"] for trial in trials] == list(range(20))
    assert trials[0] == {"number": 0, "params": default.to_dict(), "duplicate_of": None}
    for trial in trials:
        assert json.loads(json.dumps(trial)) == trial
        assert Hyperparameters.from_dict(trial["params"]).to_dict() == trial["params"]
        assert space.locate(trial["params"]) is not None
    distinct = {json.dumps(trial["params"]) for trial in trials}
    assert len(distinct) > 15


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "default",
    [
        Hyperparameters(),  # inside
        Hyperparameters(hidden_dims=(48, 48, 48)),  # outside one choice
        Hyperparameters(learning_rate=1.0),  # outside an interval
    ],
    ids=["inside", "other widths", "other rate"],
)
def test_trial_0_is_the_default_wherever_it_lies(algorithm: str, default: Hyperparameters) -> None:
    trials = trials_of(drive(make(algorithm=algorithm, default=default)))
    assert trials[0]["params"] == default.to_dict()
    assert sum(trial["params"] == default.to_dict() for trial in trials) == 1
    # What the space leaves out is the default's, in every trial.
    assert {trial["params"]["activation"] for trial in trials} == {default.activation}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("end", [0, 1], ids=["low", "high"])
def test_a_default_at_an_end_of_its_interval(algorithm: str, end: int) -> None:
    space = SearchSpace.parse(
        {
            "learning_rate": {"loguniform": [1e-4, 1e-2]},
            "dropout": {"uniform": [0.0, 0.5]},
            "epochs": {"int": [3, 9]},
        }
    )
    default = Hyperparameters(
        learning_rate=[1e-4, 1e-2][end], dropout=[0.0, 0.5][end], epochs=[3, 9][end]
    )
    trials = trials_of(drive(make(space, algorithm=algorithm, default=default, max_evals=6)))
    assert trials[0]["params"] == default.to_dict()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_whole_numbers_reach_both_ends(algorithm: str) -> None:
    space = SearchSpace.parse({"epochs": {"int": [1, 3]}})
    trials = trials_of(drive(make(space, algorithm=algorithm, max_evals=30), lambda _: 0.5))
    assert {trial["params"]["epochs"] for trial in trials[1:]} == {1, 2, 3}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("space", [SPACE, CONDITIONAL], ids=["flat", "conditional"])
def test_timing_does_not_change_the_search(algorithm: str, space: SearchSpace) -> None:
    in_turn = drive(make(space, algorithm=algorithm))
    for shuffle in range(6):
        assert drive(make(space, algorithm=algorithm), order=random.Random(shuffle)) == in_turn


@pytest.mark.parametrize("algorithm", ["hyperopt", "optuna"])
def test_telling_early_would_change_the_search(algorithm: str) -> None:
    """The check above has teeth: a searcher told of each pack as it ends depends on timing."""

    class Eager(PackSearch):
        def on_trial_complete(self, trial_id: str, *rest: Any, **named: Any) -> None:
            pack = self._under_way[trial_id]
            super().on_trial_complete(trial_id, *rest, **named)
            for member in pack["trials"]:
                self._proposals.tell(member["number"], self._scores)

        def _tell_up_to(self, last: int) -> bool:
            return self._ended.issuperset(range((last + 1) * self._packing.pack_size))

    options: dict[str, Any] = {"max_evals": 36, "packing": Packing(3, 3), "initial_points": 5}
    options |= {"workers": 3, "algorithm": algorithm, "kind": Eager}
    studies = [drive(make(**options), order=random.Random(shuffle)) for shuffle in range(4)]
    assert any(study != studies[0] for study in studies)


@pytest.mark.parametrize("algorithm", ["hyperopt", "optuna"])
@pytest.mark.parametrize("in_flight", [1, 2, 4])
def test_a_pack_depends_on_those_l_before_it_and_on_no_later_one(
    algorithm: str, in_flight: int
) -> None:
    """From pack `changed` on, scores are others: pack `changed` + L is the first to notice."""
    changed, size = 3, 3

    def study(flip: bool) -> list[Params]:
        search = make(
            algorithm=algorithm,
            max_evals=size * 12,
            packing=Packing(size, in_flight),
            initial_points=3,
        )
        packs: list[Params] = []
        ended = 0
        while isinstance(pack := search.suggest(f"trial-{len(packs)}"), dict) or pack is None:
            if pack is not None:
                packs.append(pack)
                continue
            worse = flip and ended >= changed
            score: Score = (lambda params: -bowl(params)) if worse else bowl
            search.on_trial_complete(f"trial-{ended}", report_of(packs[ended], score))
            ended += 1
        return packs

    one, other = study(False), study(True)
    first = changed + in_flight
    assert one[:first] == other[:first]
    assert one[first:] != other[first:]


def test_what_is_told_is_told_in_order_and_in_time(
    recorded: Callable[..., tuple[PackSearch, Recorder]],
) -> None:
    space = SearchSpace.parse({"epochs": {"int": [1, 100]}})
    points = [{"epochs": 50}, *({"epochs": n} for n in range(1, 12))]

    def events(order: random.Random | None) -> list[tuple[Any, ...]]:
        search, recorder = recorded(points, space, max_evals=8, packing=Packing(2, 2))
        drive(search, lambda params: params["epochs"] / 100, order)
        return recorder.events

    expected = [
        *(("asked", number) for number in (0, 1, 2, 3)),
        ("told", 0, 0.5),
        ("told", 1, 0.01),
        ("asked", 4),
        ("asked", 5),
        ("told", 2, 0.02),
        ("told", 3, 0.03),
        ("asked", 6),
        ("asked", 7),
    ]
    assert events(None)[: len(expected)] == expected
    for shuffle in range(10):
        assert events(random.Random(shuffle))[: len(expected)] == expected


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_seed_decides(algorithm: str) -> None:
    one, again, other = (
        trials_of(drive(make(algorithm=algorithm, seed=seed))) for seed in (5, 5, 6)
    )
    assert one == again
    assert one[0] == other[0]
    assert all(a != b for a, b in zip(one[1:], other[1:], strict=True))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_any_seed_of_the_settings_will_do(algorithm: str, seed: int) -> None:
    assert len(drive(make(algorithm=algorithm, seed=seed, max_evals=6))) == 2


@pytest.mark.parametrize("in_flight", [1, 2, 5])
def test_it_waits_for_the_pack_l_before_and_for_no_other(in_flight: int) -> None:
    search = make(max_evals=30, packing=Packing(2, in_flight), algorithm="random")
    packs = [search.suggest(f"trial-{n}") for n in range(in_flight)]
    assert all(isinstance(pack, dict) for pack in packs)
    for n in reversed(range(1, in_flight)):
        search.on_trial_complete(f"trial-{n}", {"scores": []})
        assert search.suggest("next") is None
        assert search.suggest("next") is None
    search.on_trial_complete("trial-0", {"scores": []})
    for n in range(in_flight):
        pack = search.suggest(f"trial-{in_flight + n}")
        assert isinstance(pack, dict)
        assert pack["pack"] == in_flight + n
    assert search.suggest("next") is None


def test_every_worker_has_one_pack_and_the_next_is_proposed_meanwhile(
    recorded: Callable[..., tuple[PackSearch, Recorder]],
) -> None:
    space = SearchSpace.parse({"epochs": {"int": [1, 100]}})
    points = [{"epochs": 50}, *({"epochs": n} for n in range(1, 12))]
    search, recorder = recorded(points, space, max_evals=6, packing=Packing(1, 3), workers=2)
    assert [search.suggest(name)["pack"] for name in ("a", "b")] == [0, 1]
    assert search.suggest("c") is None
    assert recorder.events == [("asked", 0), ("asked", 1), ("asked", 2)]
    assert search.suggest("c") is None
    search.on_trial_complete("b", {"scores": [[1, 0.25]]})
    pack = search.suggest("c")
    assert isinstance(pack, dict) and pack["pack"] == 2
    assert search.suggest("d") is None
    assert recorder.events == [("asked", 0), ("asked", 1), ("asked", 2)]
    search.on_trial_complete("c", error=True)
    assert search.suggest("d") is None
    search.on_trial_complete("a", {"scores": [[0, 0.5]]})
    assert [search.suggest(name)["pack"] for name in ("d", "e")] == [3, 4]


@pytest.mark.parametrize(
    ("max_evals", "pack_size", "sizes"),
    [
        (1, 1, [1]),
        (1, 8, [1]),
        (7, 3, [3, 3, 1]),
        (6, 3, [3, 3]),
        (5, 1, [1, 1, 1, 1, 1]),
        (4, 100, [4]),
    ],
)
def test_sizes(max_evals: int, pack_size: int, sizes: list[int]) -> None:
    search = make(max_evals=max_evals, packing=Packing(pack_size, 2), algorithm="random")
    assert [len(pack["trials"]) for pack in drive(search)] == sizes


@pytest.mark.parametrize("max_evals", [1, 3])
def test_without_a_space_there_is_the_default_alone(max_evals: int) -> None:
    search = make(None, max_evals=max_evals, packing=Packing(1, 1))
    trials = trials_of(drive(search))
    assert [trial["params"] for trial in trials] == [DEFAULT.to_dict()] * max_evals
    assert [trial["duplicate_of"] for trial in trials] == [None, 0, 0][:max_evals]


def test_duplicates_name_the_first_and_share_its_score(
    recorded: Callable[..., tuple[PackSearch, Recorder]],
) -> None:
    # DEFAULT has a batch of 32: option 1. So 16, 32, 16, 32, ... come after it.
    points = [{"batch_size": 1}, *[{"batch_size": 0}, {"batch_size": 1}] * 5]
    search, recorder = recorded(points, max_evals=8, packing=Packing(2, 1))
    trials = trials_of(drive(search, lambda params: params["batch_size"] / 100))
    assert [trial["params"]["batch_size"] for trial in trials] == [32, 16, 32, 16, 32, 16, 32, 16]
    assert [trial["duplicate_of"] for trial in trials] == [None, None, 0, 1, 0, 1, 0, 1]
    told = [event[1:] for event in recorder.events if event[0] == "told"]
    assert told == [(0, 0.32), (1, 0.16), (2, 0.32), (3, 0.16), (4, 0.32), (5, 0.16)]


def test_a_default_outside_the_space_is_found_again_as_nobodys_duplicate(
    recorded: Callable[..., tuple[PackSearch, Recorder]],
) -> None:
    default = Hyperparameters(batch_size=512)
    search, recorder = recorded(
        [{"batch_size": 0}, {"batch_size": 1}], default=default, max_evals=4, packing=Packing(2, 1)
    )
    trials = trials_of(drive(search, lambda params: params["batch_size"] / 100))
    assert [trial["params"]["batch_size"] for trial in trials] == [512, 16, 32, 16]
    assert [trial["duplicate_of"] for trial in trials] == [None, None, None, 1]
    # The searcher has no point for the default, and is neither asked nor told of it.
    assert recorder.events == [("asked", 1), ("told", 1, 0.16), ("asked", 2), ("asked", 3)]


@pytest.mark.parametrize("mode", BY_MODE)
@pytest.mark.parametrize("how", ["no score", "missing", "pack died", "stopped"])
def test_a_trial_without_a_score_counts_as_the_worst(
    mode: str, how: str, recorded: Callable[..., tuple[PackSearch, Recorder]]
) -> None:
    search, recorder = recorded([{"batch_size": 1}], mode=mode, max_evals=4, packing=Packing(1, 1))
    search.suggest("a")
    if how == "no score":
        search.on_trial_complete("a", {"scores": [[0, None]]})
    elif how == "missing":
        search.on_trial_complete("a", {"scores": []})
    elif how == "pack died":
        search.on_trial_complete("a", error=True)
    else:
        search.on_trial_complete("a")
    search.suggest("b")
    assert recorder.events[1] == ("told", 0, BY_MODE[mode].worst)
    # Its duplicate too.
    search.on_trial_complete("b", {"scores": []})
    search.suggest("c")
    assert recorder.events[3] == ("told", 1, BY_MODE[mode].worst)


def test_a_score_of_a_pack_that_dies_later_is_told(
    recorded: Callable[..., tuple[PackSearch, Recorder]],
) -> None:
    search, recorder = recorded(
        [{"batch_size": 1}, {"batch_size": 0}], max_evals=4, packing=Packing(2, 1)
    )
    search.suggest("a")
    search.on_trial_result("a", {"scores": [[1, 0.25]]})
    search.on_trial_result("a", {"scores": []})  # started again
    assert search.suggest("b") is None
    search.on_trial_complete("a", error=True)
    # Its other trial is tried again, alone; the next pack waits for it.
    alone = search.suggest("b")
    assert (alone["pack"], [member["number"] for member in alone["trials"]]) == (0, [0])
    assert search.suggest("c") is None
    search.on_trial_complete("b", error=True)
    assert [member["number"] for member in search.suggest("c")["trials"]] == [2, 3]
    assert recorder.events[2:4] == [("told", 0, BY_MODE["max"].worst), ("told", 1, 0.25)]


@pytest.mark.parametrize("algorithm", ["hyperopt", "optuna", "random"])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_a_study_that_goes_on_proposes_what_it_would_have_proposed(
    algorithm: str, size: int
) -> None:
    options: dict[str, Any] = {"algorithm": algorithm, "packing": Packing(size, 2), "workers": 2}
    whole = trials_of(drive(make(max_evals=24, **options)))
    assert len(whole) == 24
    for ended in ({0}, set(range(7)), set(range(24)) - {9, 10}, {0, 1, 2, 8, 20}, set(range(24))):
        recorded = {n: record_of(whole[n]) for n in ended}
        going_on = make(max_evals=24, recorded=recorded, **options)
        assert going_on.finished == (len(ended) == 24)
        packs = drive(going_on)
        trained = trials_of(packs)
        assert trained == [whole[trial["number"]] for trial in trained]
        numbers = {trial["number"] for trial in trained}
        # All of a pack again, for its sums round as it is composed, and no other pack.
        again = {n // size for n in range(24) if n not in ended}
        assert numbers == {n for n in range(24) if n // size in again}
        assert {n for pack in packs for n in pack["settled"]} == numbers & set(ended)


def test_an_extended_study_keeps_the_packs_that_its_end_had_cut() -> None:
    options: dict[str, Any] = {"packing": Packing(4, 2), "workers": 1}
    first = trials_of(drive(make(max_evals=10, **options)))
    recorded = {trial["number"]: record_of(trial) for trial in first}
    extended = drive(make(max_evals=17, recorded=recorded, ends=[10], **options))
    numbers = [[trial["number"] for trial in pack["trials"]] for pack in extended]
    assert numbers == [[10, 11], [12, 13, 14, 15], [16]]
    assert [pack["pack"] for pack in extended] == [2, 3, 4]
    assert trials_of(extended) == trials_of(drive(make(max_evals=17, **options)))[10:]


def test_what_is_not_proposed_as_before_is_refused() -> None:
    options: dict[str, Any] = {"max_evals": 6, "packing": Packing(2, 2)}
    trials = trials_of(drive(make(**options)))
    recorded = {trial["number"]: record_of(trial) for trial in trials[:3]}
    recorded[2].params["learning_rate"] *= 1.5
    with pytest.raises(InputError, match="trial 2 must be proposed as it was before"):
        drive(make(recorded=recorded, **options))


def record_of(trial: Params) -> TrialRecord:
    """A trial of the bowl as MLflow has it."""
    params = json.loads(json.dumps(trial["params"]))
    result = {"trial": trial["number"], "outcome": "completed", "score": bowl(trial["params"])}
    return TrialRecord(params, "run", "FINISHED", trial["duplicate_of"], result)


@pytest.mark.parametrize(("mode", "scores"), [("max", [0.0, 0.5, 1.0]), ("min", [0.0, 2.0, 1e3])])
def test_no_score_is_worse_than_the_worst(mode: str, scores: list[float]) -> None:
    better = max if mode == "max" else min
    assert all(better(score, BY_MODE[mode].worst) == score for score in scores)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_study_of_failures_goes_on(algorithm: str) -> None:
    trials = trials_of(drive(make(algorithm=algorithm), lambda params: None))
    assert len(trials) == 24


@pytest.mark.parametrize("algorithm", ["hyperopt", "optuna"])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_it_learns(algorithm: str, mode: str) -> None:
    """After its random trials it proposes better ones than these were: it hears of the scores."""
    sign = 1.0 if mode == "max" else -1.0
    gains = []
    for seed in range(3):
        search = make(
            algorithm=algorithm,
            mode=mode,
            seed=seed,
            max_evals=60,
            packing=Packing(4, 3),
            initial_points=12,
        )
        trials = trials_of(drive(search, lambda params: sign * bowl(params)))
        values = [bowl(trial["params"]) for trial in trials]
        gains.append(sum(values[-24:]) / 24 - sum(values[1:13]) / 12)
    assert sum(gains) / len(gains) > 0.1


def test_a_search_saves_nothing(tmp_path: Any) -> None:
    search = make()
    search.save(str(tmp_path / "state"))
    search.restore(str(tmp_path / "state"))
    assert list(tmp_path.iterdir()) == []
