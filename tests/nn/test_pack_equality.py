"""A member of a pack is the same trial as alone, whatever its neighbours."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from nn_harness import History, Table, padding, run

from mlops.configuration.hyperparameters import ACTIVATIONS, Hyperparameters
from mlops.nn import streams
from mlops.nn.device import tensors
from mlops.nn.device.passes import Passes
from mlops.nn.device.rows import Rows
from mlops.nn.mlp import MLP
from mlops.nn.optimizer import PackedAdamW
from mlops.nn.packed import PackedMLP
from mlops.nn.records import Outcome
from mlops.nn.training import Halving

DIMS = {1: (12,), 2: (16, 8), 3: (10, 8, 6)}
NUMBER = 40


def assert_same_trial(alone: History, packed: History, table: Table, number: int = NUMBER) -> None:
    """Log loss within 1e-3 and accuracy within one row, in every epoch that both trained."""
    row = 1.001 / len(table.y_val)
    train_row = 1.001 / len(table.y_train)
    pairs = list(zip(alone.records[number], packed.records[number], strict=False))
    assert pairs
    for left, right in pairs:
        assert left.val_loss == pytest.approx(right.val_loss, abs=1e-3)
        assert left.train_loss == pytest.approx(right.train_loss, abs=1e-3)
        assert left.val_accuracy == pytest.approx(right.val_accuracy, abs=row)
        assert left.train_accuracy == pytest.approx(right.train_accuracy, abs=train_row)


def widened(member: Hyperparameters, by: int) -> Hyperparameters:
    return replace(member, hidden_dims=tuple(width + by for width in member.hidden_dims))


@pytest.mark.parametrize("depth", DIMS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_alone_or_padded_among_others(
    noisy: Table, activation: str, depth: int, one_group: None
) -> None:
    member = Hyperparameters(
        hidden_dims=DIMS[depth], activation=activation, epochs=30, dropout=0.15, learning_rate=2e-3
    )
    others = [widened(member, by) for by in (37, 5, -4)]
    others[1] = replace(others[1], activation="tanh", dropout=0.0, label_smoothing=0.1)
    others[2] = replace(others[2], activation="gelu", weight_decay=0.3)
    alone = run([member], noisy, numbers=[NUMBER])
    packed = run([*others, member], noisy, numbers=[1, 2, 3, NUMBER])
    assert_same_trial(alone, packed, noisy)
    assert set(packed.outcomes().values()) == {Outcome.COMPLETED}


MEMBER = Hyperparameters(hidden_dims=(16, 8), epochs=30, batch_size=32, dropout=0.1)
NEIGHBOURS = {
    "none": [],
    "itself under other numbers": [MEMBER, MEMBER],
    "without dropout": [replace(MEMBER, dropout=0.0)],
    "label smoothing": [replace(MEMBER, label_smoothing=0.3)],
    "other rates": [replace(MEMBER, learning_rate=0.1), replace(MEMBER, learning_rate=1e-6)],
    "one that diverges to NaN": [replace(MEMBER, learning_rate=1e30)],
    "wide ones that diverge": [replace(widened(MEMBER, 20), learning_rate=1e30)] * 3,
    "fewer epochs": [replace(MEMBER, epochs=1), replace(widened(MEMBER, 9), epochs=7)],
    "more epochs": [replace(widened(MEMBER, 9), epochs=35)],
    "other batch sizes": [replace(MEMBER, batch_size=b) for b in (1, 16, 64, 1000)],
    "other depths": [replace(MEMBER, hidden_dims=d) for d in ((8,), (8, 8, 8), (4, 4, 4, 4))],
    "one unit wide": [replace(MEMBER, hidden_dims=(1, 1))],
    "much wider": [replace(MEMBER, hidden_dims=(150, 130))],
    "every activation": [replace(MEMBER, activation=name) for name in ACTIVATIONS],
}


@pytest.fixture(scope="module")
def alone(noisy: Table) -> History:
    return run([MEMBER], noisy, numbers=[NUMBER])


@pytest.mark.parametrize(
    ("place", "together"),
    [("first", True), ("last", True), ("last", False)],
    ids=["first of one group", "last of one group", "grouped by width"],
)
@pytest.mark.parametrize("kind", NEIGHBOURS)
def test_neighbours_do_not_matter(
    noisy: Table,
    alone: History,
    kind: str,
    place: str,
    together: bool,
    request: pytest.FixtureRequest,
) -> None:
    others = NEIGHBOURS[kind]
    if together and kind not in ("other batch sizes", "other depths"):
        request.getfixturevalue("one_group")
    if kind == "other batch sizes":
        others = [replace(other, epochs=2) for other in others]
    numbers = list(range(len(others)))
    if place == "first":
        packed = run([MEMBER, *others], noisy, numbers=[NUMBER, *numbers])
    else:
        packed = run([*others, MEMBER], noisy, numbers=[*numbers, NUMBER])
    assert packed.results[NUMBER].outcome is Outcome.COMPLETED
    assert_same_trial(alone, packed, noisy)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 203, 500])
def test_batch_sizes(noisy: Table, batch_size: int, one_group: None) -> None:
    member = replace(MEMBER, batch_size=batch_size, epochs=3 if batch_size == 1 else 30)
    alone = run([member], noisy, numbers=[NUMBER])
    packed = run([widened(member, 11), member], noisy, numbers=[0, NUMBER])
    assert_same_trial(alone, packed, noisy)


@pytest.mark.parametrize("metric", ["val_accuracy", "val_f1", "val_loss"])
def test_a_pruned_member_was_the_same_trial_until_then(
    noisy: Table, metric: str, one_group: None
) -> None:
    members = [replace(MEMBER, learning_rate=r, epochs=12) for r in (3e-3, 1e-6, 1e-2, 1e-5)]
    pruned = run(members, noisy, metric=metric, halving=Halving(eta=2, min_epochs=3))
    for number, member in enumerate(members):
        alone = run([member], noisy, metric=metric, numbers=[number])
        assert_same_trial(alone, pruned, noisy, number)
    assert Outcome.PRUNED in pruned.outcomes().values()


def test_the_seed_and_the_trial_number_do_matter(noisy: Table) -> None:
    member = replace(MEMBER, epochs=2)
    losses = {
        run([member], noisy, seed=seed, numbers=[number]).records[number][-1].val_loss
        for seed in (0, 1)
        for number in (0, 1)
    }
    assert len(losses) == 4


def test_the_same_study_again_is_bit_identical(noisy: Table) -> None:
    members = [replace(MEMBER, epochs=4), replace(widened(MEMBER, 30), epochs=4)]
    first, again = (run(members, noisy, seed=2) for _ in range(2))
    assert first.records == again.records
    for number, result in first.results.items():
        for name, tensor in result.weights.items():
            assert torch.equal(tensor, again.results[number].weights[name])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_padding_stays_exactly_zero(noisy: Table, activation: str) -> None:
    members = [
        Hyperparameters(hidden_dims=(3, 9), activation=activation, dropout=0.3, weight_decay=0.5),
        Hyperparameters(hidden_dims=(8, 2), activation=activation, label_smoothing=0.2),
        Hyperparameters(hidden_dims=(1, 1), activation=activation, learning_rate=0.1),
    ]
    pack = PackedMLP(members, noisy.x_train.shape[1], noisy.n_classes)
    for k, member in enumerate(members):
        mlp = MLP(noisy.x_train.shape[1], noisy.n_classes, member.hidden_dims)
        pack.load_member(k, mlp.reset(streams.initial_weights(0, k)))
    padded = padding(pack)
    assert 0 < padded.sum() < len(padded)
    optimizer, passes = PackedAdamW(pack), Passes(pack, Rows.on("cpu", *noisy))
    for epoch in range(1, 6):
        list(passes.pieces(optimizer, 0, epoch))
        passes.evaluate()
    flats = (pack.parameters, pack.gradients, optimizer.first_moment, optimizer.second_moment)
    for flat in flats:
        assert (flat[padded] == 0).all()
        assert (flat[~padded] != 0).any()


def test_padding_stays_zero_through_compaction(
    noisy: Table, monkeypatch: pytest.MonkeyPatch, one_group: None
) -> None:
    seen = []

    class Watched(tensors.PackedAdamW):
        def step(self) -> None:
            super().step()
            seen.append(
                all(
                    bool((flat[padding(self.pack)] == 0).all())
                    for flat in (self.pack.parameters, self.first_moment, self.second_moment)
                )
            )

    monkeypatch.setattr(tensors, "PackedAdamW", Watched)
    members = [
        replace(widened(MEMBER, by), epochs=epochs)
        for by, epochs in ((20, 1), (-5, 3), (0, 4), (7, 2))
    ]
    run(members, noisy)
    assert len(seen) == 4 * 7
    assert all(seen)
