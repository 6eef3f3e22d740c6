"""Products in bfloat16 beside products in float32."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from nn_harness import Table, load, run

from mlops.configuration.hyperparameters import Hyperparameters

MEMBERS = [
    Hyperparameters(hidden_dims=dims, epochs=8, dropout=0.1 * k, activation=name)
    for k, (name, dims) in enumerate([("relu", (32, 16)), ("gelu", (20, 20)), ("tanh", (7, 30))])
]


def test_bf16_learns_as_much(digits: Table) -> None:
    exact, rounded = (run(MEMBERS, digits, precision=name) for name in ("float32", "bf16"))
    for number, result in exact.results.items():
        other = rounded.results[number]
        # 597 rows to validate on: some ten of them.
        assert other.score == pytest.approx(result.score, abs=0.02)
        losses = [record.val_loss for record in rounded.records[number]]
        assert losses[-1] < losses[0] / 2
        for left, right in zip(exact.records[number], rounded.records[number], strict=True):
            assert right.train_loss == pytest.approx(left.train_loss, rel=0.05)
    # It is not float32 under another name.
    assert exact.records[0] != rounded.records[0]


def test_what_is_learned_is_float32(digits: Table) -> None:
    (member, *_) = MEMBERS
    result = run([member], digits, precision="bf16").results[0]
    assert {tensor.dtype for tensor in result.weights.values()} == {torch.float32}
    with torch.no_grad():
        predicted = load(result, member, digits)(torch.from_numpy(digits.x_val)).argmax(1)
    accuracy = (predicted.numpy() == digits.y_val).mean()
    assert result.metrics["val_accuracy"] == pytest.approx(accuracy, abs=0.01)


def test_tf32_on_a_cpu_is_float32(digits: Table) -> None:
    member = replace(MEMBERS[0], epochs=2)
    exact, same = (run([member], digits, precision=name) for name in ("float32", "tf32"))
    assert exact.records == same.records
