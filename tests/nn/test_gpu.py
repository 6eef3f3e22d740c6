"""The packed program on a GPU beside the same program on the CPU."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from nn_harness import History, Table, load, run

from mlops.configuration.hyperparameters import ACTIVATIONS, Hyperparameters
from mlops.nn.device.graphs import Graphs, Lane
from mlops.nn.device.precision import DTYPES
from mlops.nn.device.rows import Rows
from mlops.nn.records import EpochRecord, Outcome, TrialResult
from mlops.nn.tasks.classification import Classification
from mlops.nn.training import Halving, PackTraining

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

MEMBERS = [
    Hyperparameters(
        hidden_dims=dims, activation=name, epochs=6, dropout=0.1 * k, label_smoothing=0.05 * k
    )
    for k, (name, dims) in enumerate(
        zip(ACTIVATIONS, [(16, 8), (9, 20), (30, 4), (5, 5)], strict=True)
    )
]
# Other depths and batch sizes: several groups.
VARIED = [
    *MEMBERS,
    *(replace(member, batch_size=64, epochs=4) for member in MEMBERS),
    Hyperparameters(hidden_dims=(70,), epochs=5, weight_decay=0.1, learning_rate=0.01),
    Hyperparameters(hidden_dims=(7, 7, 7), epochs=7, dropout=0.5, activation="gelu"),
]
# How far losses of some epochs may be apart, by the precision of products.
TOLERANCES = {"float32": 2e-3, "tf32": 2e-3, "bf16": 5e-3}


def assert_close(left: History, right: History, tolerance: float = 2e-3) -> None:
    assert left.outcomes() == right.outcomes()
    for number, records in left.records.items():
        for one, other in zip(records, right.records[number], strict=True):
            assert one.val_loss == pytest.approx(other.val_loss, abs=tolerance)
            assert one.train_loss == pytest.approx(other.train_loss, abs=tolerance)
            assert one.val_accuracy == pytest.approx(other.val_accuracy, abs=2.01 / 100)


@pytest.mark.parametrize("precision", DTYPES)
def test_epochs_equal_those_on_the_cpu(noisy: Table, precision: str) -> None:
    on_cpu, on_gpu = (
        run(VARIED, noisy, device=device, precision=precision) for device in ("cpu", "cuda")
    )
    assert_close(on_cpu, on_gpu, TOLERANCES[precision])


def test_weights_come_back_to_the_cpu(noisy: Table) -> None:
    history = run(MEMBERS, noisy, device="cuda")
    for number, result in history.results.items():
        assert all(tensor.device.type == "cpu" for tensor in result.weights.values())
        with torch.no_grad():
            predicted = load(result, MEMBERS[number], noisy)(torch.from_numpy(noisy.x_val))
        accuracy = (predicted.argmax(1).numpy() == noisy.y_val).mean()
        assert result.metrics["val_accuracy"] == pytest.approx(accuracy, abs=1.01 / 100)


def test_pruning_and_failures(noisy: Table) -> None:
    members = [*MEMBERS, replace(MEMBERS[0], learning_rate=1e30)]
    outcomes = run(members, noisy, device="cuda", halving=Halving(2, 2)).outcomes()
    assert outcomes[4] is Outcome.FAILED
    assert set(outcomes.values()) == {Outcome.COMPLETED, Outcome.PRUNED, Outcome.FAILED}


def test_snapshots_go_on_to_the_same_end(noisy: Table) -> None:
    rows = Rows.on("cuda", *noisy)

    def told(events: Iterator[list[EpochRecord | TrialResult]]) -> list[object]:
        return [
            {name: value for name, value in vars(event).items() if name not in hidden}
            for part in events
            for event in part
        ]

    hidden = ("seconds", "weights")
    whole = PackTraining(VARIED, rows, seed=3, halving=Halving(2, 2))
    snapshots, parts = [whole.snapshot()], []
    for events in whole.events():
        parts.append(events)
        snapshots.append(whole.snapshot())
    for i, snapshot in enumerate(snapshots[:-1]):
        resumed = PackTraining(VARIED, rows, seed=3, halving=Halving(2, 2), snapshot=snapshot)
        assert told(resumed.events()) == told(iter(parts[i:]))


def test_a_capture_that_is_refused_is_done_without(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Graphs, "are_possible", True)
    lane = Lane(torch.device("cuda"))
    with lane.entered(), caplog.at_level(logging.WARNING):
        total = torch.zeros(1, device="cuda")

        def waits() -> None:
            total.add_(1)
            total.item()

        replayed = lane.graphs().replayable(waits)
        for _ in range(5):
            replayed()
        assert total.item() == 5
    assert not Graphs.are_possible
    assert "training goes on without CUDA graphs" in caplog.text


def test_training_without_graphs_is_the_same(noisy: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    with_graphs = run(MEMBERS, noisy, device="cuda")
    monkeypatch.setattr(Graphs, "are_possible", False)
    assert run(MEMBERS, noisy, device="cuda").records == with_graphs.records


def test_a_pack_that_does_not_fit_goes_on_as_smaller_ones(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 30)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    table = Table(x, y, x, y, Classification(range(2)))
    members = [Hyperparameters(hidden_dims=(500, 500), epochs=2, batch_size=2000)] * 64
    whole = run(members, table, device="cuda")
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    try:
        torch.cuda.set_per_process_memory_fraction(1.2e9 / total)
        with caplog.at_level(logging.WARNING):
            parts = run(members, table, device="cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "64 trials do not fit the device's memory at once and go on as 32 and 32" in caplog.text
    for number, result in parts.results.items():
        assert result.outcome is Outcome.COMPLETED
        assert result.score == pytest.approx(whole.results[number].score, abs=0.01)
