"""Groups share a device's memory: who waits, who is closed meanwhile, who goes on in halves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import pytest
from nn_harness import Table
from test_snapshot import OPTIONS, bits, training

from mlops.nn.device.passes import Passes
from mlops.nn.device.tensors import Tensors
from mlops.nn.records import EpochRecord, Outcome, TrialResult

Events = list[EpochRecord | TrialResult]
# Of the members of `test_snapshot`, two are in one group and five in the other.
LARGEST, ALL = 5, 7


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Returns what leaves a device room for the tensors of so many members.

    There is too little either for tensors to be made, or not before their first epoch has changed
    them, when validation wants its buffers.
    """
    alive: WeakSet[Tensors] = WeakSet()
    make, evaluate = Tensors.__init__, Passes.evaluate

    def check(room: int) -> None:
        if sum(len(tensors.pack) for tensors in alive) > room:
            raise MemoryError(f"room for {room} members")

    def set_limit(room: int, *, at_once: int = 1, late: bool = False) -> None:
        def made(self: Tensors, *args: Any) -> None:
            make(self, *args)
            alive.add(self)
            if not late:
                check(room)

        def evaluated(self: Passes) -> Any:
            if late:
                check(room)
            return evaluate(self)

        monkeypatch.setattr("mlops.nn.turns.GROUPS_AT_ONCE", {"cpu": at_once})
        monkeypatch.setattr(Tensors, "__init__", made)
        monkeypatch.setattr(Passes, "evaluate", evaluated)

    return set_limit


def all_events(table: Table, options: dict[str, Any]) -> Events:
    return [event for part in training(table, **options).events() for event in part]


def in_order(events: Events) -> list[Any]:
    """Returns what is told of each trial; groups may take turns otherwise."""
    return sorted(bits(events), key=lambda told: int(told["trial"]))


@pytest.mark.parametrize("late", [False, True], ids=["at the start", "in the first epoch"])
@pytest.mark.parametrize("at_once", [1, 2, 16])
@pytest.mark.parametrize("room", range(LARGEST, ALL + 1))
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_groups_that_fit_one_at_a_time_end_as_if_all_fitted(
    noisy: Table,
    caplog: pytest.LogCaptureFixture,
    limit: Callable[..., None],
    options: dict[str, Any],
    room: int,
    at_once: int,
    late: bool,
) -> None:
    whole = all_events(noisy, options)
    limit(room, at_once=at_once, late=late)
    short = all_events(noisy, options)
    assert in_order(short) == in_order(whole)
    assert caplog.text == ""


@pytest.mark.parametrize("late", [False, True], ids=["at the start", "in the first epoch"])
@pytest.mark.parametrize("at_once", [1, 16])
@pytest.mark.parametrize("room", range(1, LARGEST))
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_group_that_does_not_fit_goes_on_in_parts_that_do(
    noisy: Table,
    caplog: pytest.LogCaptureFixture,
    limit: Callable[..., None],
    options: dict[str, Any],
    room: int,
    at_once: int,
    late: bool,
) -> None:
    whole = {e.trial: e for e in all_events(noisy, options) if isinstance(e, TrialResult)}
    limit(room, at_once=at_once, late=late)
    short = {e.trial: e for e in all_events(noisy, options) if isinstance(e, TrialResult)}
    assert {n: (e.outcome, e.epochs) for n, e in short.items()} == {
        n: (e.outcome, e.epochs) for n, e in whole.items()
    }
    for number, result in short.items():
        if result.score is not None:
            assert result.score == pytest.approx(whole[number].score, abs=1e-3)
    assert (
        f"5 trials do not fit the device's memory at once and go on as 2 and 3: room for {room}"
        in caplog.text
    )


def test_members_that_fit_nowhere_fail(noisy: Table, limit: Callable[..., None]) -> None:
    limit(0)
    events = all_events(noisy, {})
    assert [type(event) for event in events] == [TrialResult] * ALL
    assert {event.outcome for event in events if isinstance(event, TrialResult)} == {Outcome.FAILED}
