"""A plain torch loop, written independently, sees the same epochs and ends at the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nn_harness import Table, run, train_plainly

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.nn.tasks.classification import Classification

CASES = {
    "relu": Hyperparameters(hidden_dims=(16, 8), dropout=0.2),
    "gelu, smoothing": Hyperparameters(
        hidden_dims=(12,), activation="gelu", label_smoothing=0.2, dropout=0.1
    ),
    "silu, three layers, decay": Hyperparameters(
        hidden_dims=(8, 6, 4), activation="silu", weight_decay=0.5, dropout=0.0
    ),
    "tanh, small batches": Hyperparameters(hidden_dims=(8, 8), activation="tanh", batch_size=9),
    "batch above the rows": Hyperparameters(hidden_dims=(20,), batch_size=999, learning_rate=1e-2),
    "much dropout": Hyperparameters(hidden_dims=(40, 30), dropout=0.8),
}


@pytest.mark.parametrize("member", CASES.values(), ids=CASES)
def test_fit_equals_a_plain_loop(noisy: Table, member: Hyperparameters, one_group: None) -> None:
    seed, number, epochs = 5, 17, 8
    member = Hyperparameters.from_dict({**member.to_dict(), "epochs": epochs})
    # The neighbours are wider, so that the member under test is padded.
    neighbours = [
        Hyperparameters(
            hidden_dims=tuple(width + 9 for width in member.hidden_dims),
            batch_size=member.batch_size,
            epochs=5,
            activation=activation,
        )
        for activation in ("relu", "tanh")
    ]
    pack = [neighbours[0], member, neighbours[1]]
    history = run(pack, noisy, seed=seed, numbers=[3, number, 4], metric="val_loss")
    metrics, weights = train_plainly(member, noisy, seed=seed, number=number)
    for record, expected in zip(history.records[number], metrics, strict=True):
        for name in ("train_loss", "val_loss"):
            assert record.metrics[name] == pytest.approx(expected[name], rel=2e-4)
        assert record.train_accuracy == pytest.approx(expected["train_accuracy"], abs=1.01 / 203)
        assert record.val_accuracy == pytest.approx(expected["val_accuracy"], abs=1.01 / 100)
        assert record.val_f1 == pytest.approx(expected["val_f1"], abs=0.02)
    result = history.results[number]
    assert result.best_epoch == 1 + int(np.argmin([m["val_loss"] for m in metrics]))
    for name, expected_weight in weights[result.best_epoch - 1].items():
        torch.testing.assert_close(result.weights[name], expected_weight, rtol=2e-3, atol=2e-4)


def test_tables_of_several_chunks_equal_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, 4)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] + 0.3 * rng.normal(size=5000) > 0).astype(np.int64)
    table = Table(x[:4700], y[:4700], x[4700:], y[4700:], Classification(range(2)))
    member = Hyperparameters(hidden_dims=(24,), batch_size=96, dropout=0.3, epochs=3)
    history = run([member], table, seed=1)
    metrics, _ = train_plainly(member, table, seed=1, number=0)
    for record, expected in zip(history.records[0], metrics, strict=True):
        assert record.train_loss == pytest.approx(expected["train_loss"], rel=1e-4)
        assert record.val_loss == pytest.approx(expected["val_loss"], rel=1e-4)
        assert record.train_accuracy == pytest.approx(expected["train_accuracy"], abs=1.01 / 4700)
