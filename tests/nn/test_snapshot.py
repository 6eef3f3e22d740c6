"""A training that goes on from a snapshot ends like one that was never left, to the last bit."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from nn_harness import Table

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.nn.device.rows import Rows
from mlops.nn.records import EpochRecord, TrialResult
from mlops.nn.training import Halving, PackTraining, Snapshot

Events = list[EpochRecord | TrialResult]

# Two depths, two batch sizes, all activations; the widest leaves first and one turns non-finite.
WIDEST, DIVERGING = 14, 15
MEMBERS = {
    11: Hyperparameters((6,), epochs=9, dropout=0.2),
    12: Hyperparameters((12,), epochs=5, dropout=0.0, learning_rate=0.01, activation="tanh"),
    13: Hyperparameters((7, 5), batch_size=16, epochs=7, dropout=0.3, label_smoothing=0.1),
    WIDEST: Hyperparameters((13, 9), batch_size=16, epochs=2, dropout=0.1, activation="gelu"),
    DIVERGING: Hyperparameters((6, 9), batch_size=16, epochs=9, learning_rate=1e30),
    16: Hyperparameters((4, 9), batch_size=16, epochs=9, learning_rate=0.03, activation="silu"),
    17: Hyperparameters((5, 5), batch_size=16, epochs=9, weight_decay=0.1, learning_rate=0.01),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "no halving": {},
    "val_loss, early rungs": {"halving": Halving(2, 1), "metric": "val_loss"},
    "val_f1, late rungs": {"halving": Halving(2, 3), "metric": "val_f1"},
}


def training(table: Table, snapshot: Snapshot | None = None, **options: Any) -> PackTraining:
    rows = Rows.on("cpu", *table.head(75, 40))
    return PackTraining(
        list(MEMBERS.values()),
        rows,
        seed=5,
        numbers=list(MEMBERS),
        snapshot=snapshot,
        **options,
    )


def through_json(snapshot: Snapshot) -> Snapshot:
    return Snapshot(snapshot.tensors, json.loads(json.dumps(snapshot.facts)))


def bits(events: Events) -> list[Any]:
    """Returns all that is told but times in a form that is equal only if every bit is."""
    told: list[Any] = []
    for event in events:
        values = {f.name: repr(getattr(event, f.name)) for f in fields(event)}
        if isinstance(event, TrialResult):
            del values["seconds"]
            values["weights"] = {k: w.numpy().tobytes() for k, w in event.weights.items()}
        told.append(values)
    return told


def same(one: Snapshot, other: Snapshot) -> bool:
    tensors = [{k: t.numpy().tobytes() for k, t in s.tensors.items()} for s in (one, other)]
    return one.facts == other.facts and tensors[0] == tensors[1]


def walk(table: Table, **options: Any) -> tuple[list[Snapshot], list[Events]]:
    """Trains to the end; returns a snapshot before each list of events, and the lists."""
    whole = training(table, **options)
    snapshots, lists = [through_json(whole.snapshot())], []
    for events in whole.events():
        lists.append(events)
        snapshots.append(through_json(whole.snapshot()))
    return snapshots, lists


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_snapshot_goes_on_to_the_same_end(
    noisy: Table, one_group_a_shape: None, options: dict[str, Any]
) -> None:
    snapshots, lists = walk(noisy, **options)
    outcomes = {e.outcome.value for part in lists for e in part if isinstance(e, TrialResult)}
    assert outcomes == {"completed", "failed"} | ({"pruned"} if options else set())
    for i, snapshot in enumerate(snapshots):
        rest = training(noisy, snapshot, **options)
        assert same(rest.snapshot(), snapshot)
        assert [bits(part) for part in rest.events()] == [bits(part) for part in lists[i:]]
    assert snapshots[-1].facts["groups"] == []


@pytest.fixture
def one_group_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pads all members of one depth and batch size to the widest, however much that costs."""

    def by_shape(members: list[Hyperparameters], *_: object) -> list[list[int]]:
        shapes = [(len(m.hidden_dims), m.batch_size) for m in members]
        parts = [[i for i, s in enumerate(shapes) if s == shape] for shape in sorted(set(shapes))]
        return [sorted(part, key=lambda i: members[i].activation) for part in parts]

    monkeypatch.setattr("mlops.nn.training.group_members", by_shape)


def test_members_that_have_left_are_not_in_it_but_their_padding_is(
    noisy: Table, one_group_a_shape: None
) -> None:
    snapshots, lists = walk(noisy)
    running = set(MEMBERS)
    for snapshot, events in zip(snapshots, [[], *lists], strict=True):
        running -= {event.trial for event in events if isinstance(event, TrialResult)}
        groups = snapshot.facts["groups"]
        assert {run["number"] for group in groups for run in group["runs"]} == running
        for group in groups:
            deep = len(MEMBERS[group["runs"][0]["number"]].hidden_dims) == 2
            assert group["widths"] == ([13, 9] if deep else [12])
    assert WIDEST not in {run["number"] for run in snapshots[-2].facts["groups"][0]["runs"]}


def test_a_group_that_has_not_begun_takes_no_room(noisy: Table, one_group_a_shape: None) -> None:
    snapshots, lists = walk(noisy)
    assert snapshots[0].tensors == {}
    begun = {event.trial for event in lists[0]}
    assert begun < set(MEMBERS)
    assert {name.rpartition(".")[0] for name in snapshots[1].tensors} == {"groups.0"}


def test_a_snapshot_stays_as_it_was_taken(noisy: Table) -> None:
    whole = training(noisy)
    events = whole.events()
    next(events)
    snapshot = whole.snapshot()
    before = {name: tensor.clone() for name, tensor in snapshot.tensors.items()}
    facts = json.dumps(snapshot.facts)
    next(events)
    assert same(snapshot, Snapshot(before, json.loads(facts)))


def test_time_spent_before_counts(noisy: Table) -> None:
    snapshots, lists = walk(noisy)
    for group in snapshots[1].facts["groups"]:
        for run in group["runs"]:
            run["seconds"] += 1000.0
    gone = {e.trial for e in lists[0] if isinstance(e, TrialResult)}
    rest = [e for part in training(noisy, snapshots[1]).events() for e in part]
    results = {e.trial: e for e in rest if isinstance(e, TrialResult)}
    assert results.keys() == set(MEMBERS) - gone
    assert all(1000.0 < result.seconds < 1100.0 for result in results.values())


def test_large_members_too(noisy: Table) -> None:
    # These get a call of the optimizer each, on views of the moments.
    large = {n: replace(m, hidden_dims=(150, 140)) for n, m in list(MEMBERS.items())[:3]}
    rows = Rows.on("cpu", *noisy.head(75, 40))

    def train(snapshot: Snapshot | None = None) -> PackTraining:
        members = list(large.values())
        return PackTraining(members, rows, seed=5, numbers=list(large), snapshot=snapshot)

    whole = train()
    lists, snapshots = [], []
    for events in whole.events():
        lists.append(events)
        snapshots.append(whole.snapshot())
    for i in (0, 3, 8):
        rest = train(snapshots[i]).events()
        assert [bits(part) for part in rest] == [bits(part) for part in lists[i + 1 :]]
