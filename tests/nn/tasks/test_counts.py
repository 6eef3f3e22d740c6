"""Metrics against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from mlops.nn.records import METRIC_NAMES
from mlops.nn.tasks.counts import Counts, accuracy, confusion_matrices, macro_f1
from mlops.nn.tasks.metrics import METRICS


@st.composite
def predictions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Draws what K members predict, [K, N], the truth, [N], and the number of classes."""
    n_classes = draw(st.integers(2, 6))
    n_members, n_rows = draw(st.integers(1, 4)), draw(st.integers(1, 30))
    classes = st.integers(0, n_classes - 1)
    predicted = draw(npst.arrays(np.int64, (n_members, n_rows), elements=classes))
    actual = draw(npst.arrays(np.int64, n_rows, elements=classes))
    return predicted, actual, n_classes


@settings(deadline=None, max_examples=150)
@given(predictions())
def test_metrics_equal_scikit_learn(drawn: tuple[np.ndarray, np.ndarray, int]) -> None:
    predicted, actual, n_classes = drawn
    matrices = confusion_matrices(torch.from_numpy(predicted), torch.from_numpy(actual), n_classes)
    assert matrices.dtype == torch.int64
    counts = Counts.of(torch.from_numpy(actual), len(predicted), n_classes)
    for _ in range(2):  # the second time as if nothing had been counted
        counts.clear()
        for part in np.array_split(np.arange(len(actual)), 3):
            counts.add(torch.from_numpy(predicted[:, part]), torch.from_numpy(actual[part]))
    for some, all_of_them in zip(counts, Counts.of_matrices(matrices), strict=True):
        assert torch.equal(some, all_of_them)
    for k, row in enumerate(predicted):
        expected = confusion_matrix(actual, row, labels=range(n_classes))
        assert (matrices[k].numpy() == expected).all()
        assert accuracy(counts)[k].item() == accuracy_score(actual, row)
        # scikit-learn takes the classes seen on either side, which is the rule here too.
        assert macro_f1(counts)[k].item() == pytest.approx(
            f1_score(actual, row, average="macro"), abs=1e-12
        )


@pytest.mark.parametrize(
    ("confusion", "expected_accuracy", "expected_f1"),
    [
        ([[5, 0], [0, 5]], 1.0, 1.0),
        ([[0, 5], [5, 0]], 0.0, 0.0),
        ([[10, 0], [0, 0]], 1.0, 1.0),
        ([[5, 0], [5, 0]], 0.5, 1 / 3),
        ([[1, 0, 0], [0, 0, 1], [0, 0, 0]], 0.5, 1 / 3),
        ([[0, 0], [1, 0]], 0.0, 0.0),
    ],
)
def test_metrics_of_known_matrices(
    confusion: list[list[int]], expected_accuracy: float, expected_f1: float
) -> None:
    counts = Counts.of_matrices(torch.tensor(confusion))
    assert accuracy(counts).item() == expected_accuracy
    assert macro_f1(counts).item() == pytest.approx(expected_f1)


def test_every_metric_to_optimize_is_recorded() -> None:
    assert set(METRICS) <= set(METRIC_NAMES)
    assert {metric.mode for metric in METRICS.values()} == {"max", "min"}
