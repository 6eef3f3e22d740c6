"""What `fit` promises on tables of every shape, and that what it trains has learned."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nn_harness import Table, load, run
from sklearn.metrics import accuracy_score, f1_score, log_loss

import mlops
from mlops.configuration.hyperparameters import ACTIVATIONS, Hyperparameters
from mlops.nn.records import METRIC_NAMES, EpochRecord, Outcome
from mlops.nn.tasks.classification import Classification
from mlops.nn.tasks.metrics import METRICS
from mlops.nn.training import Halving, fit

SMALL = Hyperparameters(hidden_dims=(8, 4), epochs=3)


@pytest.mark.parametrize(
    ("n_train", "n_val", "member"),
    [
        (203, 100, SMALL),
        (203, 1, SMALL),
        (1, 1, SMALL),
        (2, 1, replace(SMALL, batch_size=1)),
        (33, 20, SMALL),
        (32, 20, SMALL),
        (31, 20, SMALL),
        (20, 5, replace(SMALL, batch_size=4096)),
        (50, 10, replace(SMALL, hidden_dims=(1,))),
        (50, 10, replace(SMALL, hidden_dims=(1, 1, 1))),
        (50, 10, replace(SMALL, hidden_dims=(2,) * 8)),
        (50, 10, replace(SMALL, epochs=1)),
        (50, 10, replace(SMALL, dropout=0.999)),
        (50, 10, replace(SMALL, label_smoothing=0.99)),
    ],
)
def test_any_shape_trains(noisy: Table, n_train: int, n_val: int, member: Hyperparameters) -> None:
    members = [member, replace(member, learning_rate=0.01)]
    history = run(members, noisy.head(n_train, n_val))
    assert set(history.outcomes().values()) == {Outcome.COMPLETED}


def test_a_table_of_one_feature_and_a_class_never_seen() -> None:
    x = np.linspace(-1, 1, 40, dtype=np.float32)[:, None]
    y = (x[:, 0] > 0).astype(np.int64)
    history = run([SMALL], Table(x, y, x[::7], y[::7], Classification(range(5))))
    assert history.results[0].weights["layers.2.weight"].shape == (5, 4)


@pytest.mark.parametrize("pruned", [False, True], ids=["whole", "pruned"])
@pytest.mark.parametrize("metric", METRICS)
def test_the_weights_are_those_of_the_best_epoch(
    noisy: Table, metric: str, pruned: bool, one_group: None
) -> None:
    members = [
        replace(SMALL, hidden_dims=(8 + 3 * k, 4 + k), activation=name, epochs=8 + 4 * k)
        for k, name in enumerate(ACTIVATIONS)
    ]
    halving = Halving(eta=2, min_epochs=5) if pruned else None
    history = run(members, noisy, metric=metric, halving=halving)
    for number, result in history.results.items():
        mlp = load(result, members[number], noisy)
        with torch.no_grad():
            logits = mlp(torch.from_numpy(noisy.x_val))
        predicted = logits.argmax(1).numpy()
        assert result.metrics["val_accuracy"] == accuracy_score(noisy.y_val, predicted)
        assert result.metrics["val_f1"] == pytest.approx(
            f1_score(noisy.y_val, predicted, average="macro"), abs=1e-12
        )
        probabilities = torch.softmax(logits.double(), 1).numpy()
        assert result.metrics["val_loss"] == pytest.approx(
            log_loss(noisy.y_val, probabilities, labels=range(3)), rel=1e-5
        )
        assert set(result.metrics) == set(METRIC_NAMES)


def test_results_can_be_trained_further_and_sent(noisy: Table) -> None:
    import pickle

    result = pickle.loads(pickle.dumps(run([SMALL], noisy).results[0]))
    mlp = load(result, SMALL, noisy).train()
    mlp(torch.from_numpy(noisy.x_train)).sum().backward()
    assert all(parameter.grad is not None for parameter in mlp.parameters())


def test_records_come_epoch_by_epoch_while_training(noisy: Table) -> None:
    stream = fit([SMALL, SMALL], *noisy, seed=0)
    first = [next(stream) for _ in range(2)]
    assert [(item.trial, isinstance(item, EpochRecord)) for item in first] == [(0, True), (1, True)]
    stream.close()


def test_train_metrics_are_those_of_the_rows_as_trained(noisy: Table) -> None:
    # A rate of almost nothing: every step sees the initial weights.
    member = replace(SMALL, learning_rate=1e-12, dropout=0.0, epochs=1, weight_decay=0.0)
    history = run([member], noisy._replace(x_val=noisy.x_train, y_val=noisy.y_train))
    record = history.records[0][0]
    assert record.train_loss == pytest.approx(record.val_loss, rel=1e-5)
    assert record.train_accuracy == record.val_accuracy


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_separable_table_is_learned(separable: Table, activation: str) -> None:
    member = Hyperparameters(
        hidden_dims=(32,), activation=activation, epochs=25, learning_rate=5e-3, dropout=0.0
    )
    members = [member, replace(member, hidden_dims=(24, 12)), replace(member, dropout=0.1)]
    for result in run(members, separable).results.values():
        assert result.score is not None and result.score > 0.99


def test_a_permuted_target_stays_at_chance(separable: Table) -> None:
    rng = np.random.default_rng(12)
    permuted = separable._replace(
        y_train=rng.permutation(separable.y_train), y_val=rng.permutation(separable.y_val)
    )
    members = [
        Hyperparameters(hidden_dims=dims, epochs=10, dropout=0.1) for dims in ((16,), (32, 16))
    ]
    history = run(members * 3, permuted)
    # The target says nothing of the rows, so recall is a draw of n_c coins in each class c.
    counts = np.bincount(permuted.y_val)
    share = np.bincount(permuted.y_train) / len(permuted.y_train)
    sigma = math.sqrt(sum(0.25 / n for n in counts)) / 2
    for records in history.records.values():
        accuracy = records[-1].val_accuracy
        assert abs(accuracy - 0.5) < 4 * sigma + abs(share - 0.5).max()
        # It does fit what it sees: chance is the table's doing, not a training that stands still.
        assert records[-1].train_loss < records[0].train_loss


def test_ten_classes_are_learned(digits: Table) -> None:
    members = [
        Hyperparameters(hidden_dims=(64,), epochs=15, learning_rate=5e-3),
        Hyperparameters(hidden_dims=(64, 32), epochs=15, learning_rate=3e-3, label_smoothing=0.1),
    ]
    for result in run(members, digits).results.values():
        assert result.metrics["val_accuracy"] > 0.95
        assert result.metrics["val_f1"] > 0.95


def test_input_arrays_are_left_alone(noisy: Table) -> None:
    before = [part.copy() for part in noisy[:4]]
    run([SMALL], noisy)
    assert all((now == then).all() for now, then in zip(noisy[:4], before, strict=True))


def test_read_only_arrays_are_taken_without_a_warning() -> None:
    # torch warns once a process, so only a fresh process can tell.
    script = """
import numpy as np
from mlops.configuration.hyperparameters import Hyperparameters
from mlops.nn.tasks.classification import Classification
from mlops.nn.training import fit
x, y = np.ones((8, 2), np.float32), np.arange(8) % 2
for part in (x, y):
    part.flags.writeable = False
print(len(list(fit([Hyperparameters((4,), epochs=2)], x, y, x, y, Classification([0, 1]), seed=0))))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=Path(mlops.__path__[0]).parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "3", "")


def test_labels_may_be_scored_in_the_last_batch_of_one_row(noisy: Table) -> None:
    history = run([replace(SMALL, batch_size=101)], noisy)  # 101 + 101 + 1
    assert all(math.isfinite(record.train_loss) for record in history.records[0])
