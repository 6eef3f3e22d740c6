"""A configuration: its JSON form, and the rule each value keeps."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops.configuration.hyperparameters import ACTIVATIONS, NAMES, Hyperparameters, problem_with

valid = st.builds(
    Hyperparameters,
    hidden_dims=st.lists(st.integers(1, 8192), min_size=1, max_size=8).map(tuple),
    learning_rate=st.floats(1e-9, 10),
    batch_size=st.integers(1, 2**20),
    epochs=st.integers(1, 100_000),
    dropout=st.floats(0, 1, exclude_max=True),
    weight_decay=st.floats(0, 100),
    label_smoothing=st.floats(0, 1, exclude_max=True),
    activation=st.sampled_from(ACTIVATIONS),
)


@given(valid)
def test_json_round_trip(hyperparameters: Hyperparameters) -> None:
    values = hyperparameters.to_dict()
    assert tuple(values) == NAMES
    again = Hyperparameters.from_dict(json.loads(json.dumps(values)))
    assert again == hyperparameters
    assert hash(again) == hash(hyperparameters)
    assert all(problem_with(name, value) is None for name, value in values.items())


def test_defaults_keep_their_own_rules() -> None:
    assert all(problem_with(n, v) is None for n, v in Hyperparameters().to_dict().items())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_dims", []),
        ("hidden_dims", [0]),
        ("hidden_dims", [8193]),
        ("hidden_dims", [4] * 9),
        ("hidden_dims", [4.0]),
        ("hidden_dims", [True]),
        ("hidden_dims", "64,32"),
        ("hidden_dims", 64),
        ("hidden_dims", None),
        ("learning_rate", 0),
        ("learning_rate", -1e-3),
        ("learning_rate", 10.1),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("learning_rate", "0.1"),
        ("learning_rate", True),
        ("batch_size", 0),
        ("batch_size", 2**20 + 1),
        ("batch_size", 32.0),
        ("epochs", 0),
        ("epochs", 100_001),
        ("epochs", False),
        ("dropout", 1),
        ("dropout", -0.1),
        ("dropout", math.nan),
        ("weight_decay", -1e-9),
        ("weight_decay", 100.5),
        ("label_smoothing", 1.0),
        ("label_smoothing", [0.1]),
        ("activation", "swish"),
        ("activation", None),
        ("activation", ["relu"]),
    ],
)
def test_a_broken_rule_is_named_with_the_value(name: str, value: Any) -> None:
    problem = problem_with(name, value)
    assert problem is not None
    assert problem.startswith("must be ")
    assert problem.endswith(f", got {value!r}")
