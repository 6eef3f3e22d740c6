"""The seed task as plain PyTorch: what every comparator shares.

A synthetic table of 1000 x 20 with 2 classes, split 64/16/20 and scaled, and a training loop of 50
epochs that records train_loss, train_accuracy, val_loss, val_accuracy and val_f1 each epoch. There
are two loops, because users write both: batches from a `DataLoader`, and batches by indexing with a
permutation. They differ in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.datasets import make_classification
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

EPOCHS = 50
HIDDEN_DIMS = [[32], [64], [64, 32], [128, 64]]
BATCH_SIZES = [16, 32, 64, 128]
LEARNING_RATE = (1e-4, 1e-2)  # log-uniform
DROPOUT = (0.0, 0.5)  # uniform
WEIGHT_DECAY = (1e-6, 1e-2)  # log-uniform

Metrics = dict[str, float]
Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Data:
    """Train and validation parts, scaled: x [N, F] float32, y [N] int64."""

    x_train: Tensor
    y_train: Tensor
    x_val: Tensor
    y_val: Tensor
    n_classes: int


def load_data(
    n_samples: int = 1000, n_features: int = 20, n_classes: int = 2, seed: int = 0
) -> Data:
    """Make the table, split it 64/16/20 and scale it by its training part."""
    x, y = make_classification(
        n_samples=n_samples,
        n_features=n_features,
        n_informative=n_features // 2,
        n_classes=n_classes,
        random_state=seed,
    )
    x_rest, _, y_rest, _ = train_test_split(x, y, test_size=0.2, stratify=y, random_state=seed)
    x_train, x_val, y_train, y_val = train_test_split(
        x_rest, y_rest, test_size=0.2, stratify=y_rest, random_state=seed
    )
    scaler = StandardScaler().fit(x_train)
    return Data(
        x_train=torch.from_numpy(scaler.transform(x_train).astype(np.float32)),
        y_train=torch.from_numpy(y_train.astype(np.int64)),
        x_val=torch.from_numpy(scaler.transform(x_val).astype(np.float32)),
        y_val=torch.from_numpy(y_val.astype(np.int64)),
        n_classes=n_classes,
    )


def build_model(
    n_features: int, n_classes: int, hidden_dims: Sequence[int], dropout: float
) -> nn.Sequential:
    """Build a multilayer perceptron with ReLU and dropout after each hidden layer."""
    layers: list[nn.Module] = []
    width = n_features
    for hidden in hidden_dims:
        layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout)]
        width = hidden
    layers.append(nn.Linear(width, n_classes))
    return nn.Sequential(*layers)


class IndexBatches:
    """Shuffled batches by indexing with a permutation, as those write who have profiled."""

    def __init__(self, x: Tensor, y: Tensor, batch_size: int) -> None:
        self.x, self.y, self.batch_size = x, y, batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(len(self.x), device=self.x.device).split(self.batch_size):
            yield self.x[rows], self.y[rows]


def loader_batches(data: Data, batch_size: int) -> Batches:
    """Make shuffled batches with a `DataLoader`, as most tutorials do."""
    dataset = TensorDataset(data.x_train, data.y_train)
    return DataLoader(dataset, batch_size=batch_size, shuffle=True)


def index_batches(data: Data, batch_size: int) -> Batches:
    """Make shuffled batches by indexing."""
    return IndexBatches(data.x_train, data.y_train, batch_size)


def train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss_function: nn.Module, batches: Batches
) -> Metrics:
    """Take one pass over the batches; the metrics are averages over the pass."""
    model.train()
    loss_sum, n_correct, n_rows = 0.0, 0, 0
    for x, y in batches:
        optimizer.zero_grad()
        logits = model(x)
        loss = loss_function(logits, y)
        loss.backward()
        optimizer.step()
        loss_sum += loss.item() * len(y)
        n_correct += (logits.argmax(dim=1) == y).sum().item()
        n_rows += len(y)
    return {"train_loss": loss_sum / n_rows, "train_accuracy": n_correct / n_rows}


def macro_f1(y: Tensor, predicted: Tensor, n_classes: int) -> float:
    """Average the F1 of the classes.

    By counting, because scikit-learn's `f1_score` took 6 ms a call, a quarter of an epoch: it
    would have made every comparator slower for no reason of its own.
    """
    pairs = torch.bincount(y * n_classes + predicted, minlength=n_classes**2)
    confusion = pairs.reshape(n_classes, n_classes)
    support = confusion.sum(dim=0) + confusion.sum(dim=1)
    return (2 * confusion.diagonal() / support.clamp(min=1)).mean().item()


@torch.no_grad()
def evaluate(model: nn.Module, loss_function: nn.Module, x: Tensor, y: Tensor) -> Metrics:
    """Score the whole validation part in one batch."""
    model.eval()
    logits = model(x)
    predicted = logits.argmax(dim=1)
    return {
        "val_loss": loss_function(logits, y).item(),
        "val_accuracy": (predicted == y).float().mean().item(),
        "val_f1": macro_f1(y, predicted, logits.shape[1]),
    }


def train(
    config: Mapping[str, Any],
    data: Data,
    make_batches: Callable[[Data, int], Batches],
    on_epoch: Callable[[int, Metrics], None],
    epochs: int = EPOCHS,
    fused: bool | None = None,
) -> float:
    """Train one configuration, call `on_epoch(epoch, metrics)` after each epoch.

    Args:
        fused: AdamW's own option; None is its default, which the comparators keep.

    Returns:
        The best validation accuracy of any epoch.
    """
    model = build_model(
        data.x_train.shape[1], data.n_classes, config["hidden_dims"], config["dropout"]
    ).to(data.x_train.device)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=config["lr"],
        weight_decay=config["weight_decay"],
        fused=fused,
    )
    loss_function = nn.CrossEntropyLoss()
    batches = make_batches(data, int(config["batch_size"]))
    best = 0.0
    for epoch in range(1, epochs + 1):
        metrics = train_epoch(model, optimizer, loss_function, batches)
        metrics |= evaluate(model, loss_function, data.x_val, data.y_val)
        on_epoch(epoch, metrics)
        best = max(best, metrics["val_accuracy"])
    return best


def gradient_steps(batch_sizes: Sequence[int], n_train: int = 640, epochs: int = EPOCHS) -> int:
    """Count the optimizer steps of trials with these batch sizes: how much work a study drew."""
    return sum(-(-n_train // int(size)) * epochs for size in batch_sizes)
