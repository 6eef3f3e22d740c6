"""The packed program on a GPU beside the same program on the CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from nn_harness import Table, load, run

from mlops.hyperparameters import ACTIVATIONS, Hyperparameters
from mlops.nn.records import Outcome
from mlops.nn.training import Halving

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


def test_epochs_equal_those_on_the_cpu(noisy: Table) -> None:
    on_cpu, on_gpu = (run(MEMBERS, noisy, device=device) for device in ("cpu", "cuda"))
    for number, records in on_cpu.records.items():
        for left, right in zip(records, on_gpu.records[number], strict=True):
            assert left.val_loss == pytest.approx(right.val_loss, abs=2e-3)
            assert left.train_loss == pytest.approx(right.train_loss, abs=2e-3)
            assert left.val_accuracy == pytest.approx(right.val_accuracy, abs=2.01 / 100)


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
