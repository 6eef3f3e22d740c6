"""What the tests of `mlops.nn` share: tables, a checked way to call `fit`, and a plain loop.

`train_plainly` is an independent reference: autograd, `torch.optim.AdamW`, scikit-learn's metrics.
It shares the random numbers of `mlops.nn.streams` with the packed program and nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.nn import streams
from mlops.nn.mlp import MLP
from mlops.nn.packed import PackedMLP
from mlops.nn.records import EpochRecord, Outcome, TrialResult
from mlops.nn.sizes import CHUNK_ROWS
from mlops.nn.tasks.classification import Classification
from mlops.nn.training import fit

FUNCTIONS = {
    "relu": torch.relu,
    "gelu": torch.nn.functional.gelu,
    "silu": torch.nn.functional.silu,
    "tanh": torch.tanh,
}


class Table(NamedTuple):
    """The rows of a study, in the order in which `fit` takes them."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray
    task: Classification

    @property
    def n_classes(self) -> int:
        return self.task.n_outputs

    def head(self, n_train: int, n_val: int) -> Table:
        return Table(
            self.x_train[:n_train],
            self.y_train[:n_train],
            self.x_val[:n_val],
            self.y_val[:n_val],
            self.task,
        )


def standardize(x: np.ndarray) -> np.ndarray:
    return ((x - x.mean(0)) / x.std(0)).astype(np.float32)


class History(NamedTuple):
    """What `fit` told, by trial number."""

    records: dict[int, list[EpochRecord]]
    results: dict[int, TrialResult]

    def outcomes(self) -> dict[int, Outcome]:
        return {number: result.outcome for number, result in sorted(self.results.items())}


def run(
    members: Sequence[Hyperparameters], table: Table, *, seed: int = 0, **options: Any
) -> History:
    """Calls `fit` and checks, whatever the test is about, that its stream keeps the contract."""
    numbers = options.get("numbers") or range(len(members))
    metric = options.get("metric", "val_accuracy")
    by_number = dict(zip(numbers, members, strict=True))
    records: dict[int, list[EpochRecord]] = defaultdict(list)
    results: dict[int, TrialResult] = {}
    for item in fit(members, *table, seed=seed, **options):
        assert item.trial in by_number
        assert item.trial not in results, "nothing comes after a trial's result"
        if isinstance(item, EpochRecord):
            records[item.trial].append(item)
        else:
            results[item.trial] = item
    assert results.keys() == by_number.keys()
    for number, result in results.items():
        own = records[number]
        assert [record.epoch for record in own] == list(range(1, result.epochs + 1))
        assert result.seconds > 0
        check_result(result, own, by_number[number], metric)
    return History(dict(records), results)


def check_result(
    result: TrialResult, records: list[EpochRecord], member: Hyperparameters, metric: str
) -> None:
    if result.outcome is Outcome.FAILED:
        assert result.reason
        assert result.score is None
        assert not result.weights
        return
    assert (result.reason is None) == (result.outcome is Outcome.COMPLETED)
    assert (result.epochs == member.epochs) == (result.outcome is Outcome.COMPLETED)
    best = min(records, key=lambda record: order(metric, record))
    assert result.score == getattr(best, metric)
    assert result.best_epoch == best.epoch
    assert result.metrics == best.metrics
    assert all(0.0 <= r.val_accuracy <= 1.0 and 0.0 <= r.val_f1 <= 1.0 for r in records)


def order(metric: str, record: EpochRecord) -> tuple[float, ...]:
    """Sorts epochs of any trials as a study does, the better first."""
    score = getattr(record, metric)
    ascending = score if metric == "val_loss" else -score
    return (ascending, record.val_loss, -record.epoch, record.trial)


def initial_mlp(member: Hyperparameters, table: Table, seed: int, number: int) -> MLP:
    mlp = MLP(table.x_train.shape[1], table.n_classes, member.hidden_dims, member.activation)
    return mlp.reset(streams.initial_weights(seed, number))


def load(result: TrialResult, member: Hyperparameters, table: Table) -> MLP:
    """Rebuilds the plain perceptron that a result's weights belong to."""
    mlp = MLP(table.x_train.shape[1], table.n_classes, member.hidden_dims, member.activation)
    mlp.load_state_dict(result.weights)
    return mlp.eval()


def padding(pack: PackedMLP) -> Tensor:
    """Returns where the pack's flat parameters are padding: [parameters] bool."""
    probe = PackedMLP(
        pack.members,
        pack.n_features,
        pack.n_outputs,
        pack.device,
        widths=pack.widths,
        alignment=pack.alignment,
    )
    for k, member in enumerate(pack.members):
        mlp = MLP(pack.n_features, pack.n_outputs, member.hidden_dims)
        for parameter in mlp.parameters():
            torch.nn.init.ones_(parameter)
        probe.load_member(k, mlp)
    return probe.parameters == 0


class Batch(NamedTuple):
    """The rows of one step and the dropout noise of each hidden layer, [B, width] float32."""

    rows: Tensor
    noise: list[Tensor]


def batches(seed: int, epoch: int, n_rows: int, member: Hyperparameters) -> Iterator[Batch]:
    """Yields the steps of one epoch from the streams, as their contract defines them."""
    size = min(member.batch_size, n_rows)
    chunk = max(1, min(CHUNK_ROWS // size, n_rows // size)) * size
    order = streams.shuffle(seed, epoch, n_rows)
    for first in range(0, n_rows, chunk):
        rows = order[first : first + chunk]
        noise = [
            streams.dropout_noise(seed, epoch, first, layer, len(rows), width)
            for layer, width in enumerate(member.hidden_dims)
        ]
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            yield Batch(rows[part], [layer[part] for layer in noise])


def logits_with_dropout(
    mlp: MLP, member: Hyperparameters, x: Tensor, noise: Sequence[Tensor]
) -> Tensor:
    """A training forward pass whose dropped units are those where the noise exceeds 1 - dropout."""
    keep = 1.0 - member.dropout
    *hidden, output = mlp.layers
    for layer, uniform in zip(hidden, noise, strict=True):
        x = FUNCTIONS[member.activation](layer(x))
        x = x * (uniform < keep).float() / keep
    return output(x)


def train_plainly(
    member: Hyperparameters, table: Table, *, seed: int, number: int
) -> tuple[list[dict[str, float]], list[dict[str, Tensor]]]:
    """Trains one configuration in a plain loop; returns metrics and weights after each epoch."""
    from sklearn.metrics import accuracy_score, f1_score, log_loss

    mlp = initial_mlp(member, table, seed, number)
    optimizer = torch.optim.AdamW(
        mlp.parameters(), lr=member.learning_rate, weight_decay=member.weight_decay
    )
    x, y, x_val = (torch.from_numpy(a) for a in (table.x_train, table.y_train, table.x_val))
    metrics, weights = [], []
    for epoch in range(1, member.epochs + 1):
        loss_sum, hits = 0.0, 0
        for rows, noise in batches(seed, epoch, len(x), member):
            logits = logits_with_dropout(mlp, member, x[rows], noise)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(
                logits, y[rows], label_smoothing=member.label_smoothing
            ).backward()
            optimizer.step()
            loss_sum += torch.nn.functional.cross_entropy(logits, y[rows], reduction="sum").item()
            hits += int((logits.argmax(1) == y[rows]).sum())
        with torch.no_grad():
            probabilities = torch.softmax(mlp(x_val).double(), 1).numpy()
        predicted = probabilities.argmax(1)
        metrics.append(
            {
                "train_loss": loss_sum / len(x),
                "train_accuracy": hits / len(x),
                "val_loss": log_loss(table.y_val, probabilities, labels=range(table.n_classes)),
                "val_accuracy": accuracy_score(table.y_val, predicted),
                "val_f1": f1_score(table.y_val, predicted, average="macro"),
            }
        )
        weights.append({name: value.clone() for name, value in mlp.state_dict().items()})
    return metrics, weights
