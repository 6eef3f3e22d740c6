"""What one configuration consists of; nothing outside the standard library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

ACTIVATIONS = ("relu", "gelu", "silu", "tanh")


@dataclass(frozen=True)
class Hyperparameters:
    """One configuration of a multilayer perceptron and its training.

    Attributes:
        hidden_dims: Width of each hidden layer, at least one.
        learning_rate: AdamW's step size.
        batch_size: Rows a step.
        epochs: Passes over the training part.
        dropout: Probability that a hidden unit is dropped in a training step.
        weight_decay: AdamW's decoupled decay, a multiple of the learning rate.
        label_smoothing: Probability mass spread evenly over all classes.
        activation: One of `ACTIVATIONS`.
    """

    hidden_dims: tuple[int, ...] = (64, 32)
    learning_rate: float = 1e-3
    batch_size: int = 32
    epochs: int = 50
    dropout: float = 0.1
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    activation: str = "relu"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Hyperparameters:
        """Builds the configuration from JSON values, where `hidden_dims` is a list."""
        return cls(**{**values, "hidden_dims": tuple(values["hidden_dims"])})

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values, every field present, `hidden_dims` as a list."""
        return {**asdict(self), "hidden_dims": list(self.hidden_dims)}


NAMES = tuple(field.name for field in fields(Hyperparameters))


@dataclass(frozen=True)
class _Rule:
    text: str
    holds: Callable[[Any], bool]


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_widths(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and 1 <= len(value) <= 8
        and all(_is_integer(width) and 1 <= width <= 8192 for width in value)
    )


_RULES: dict[str, _Rule] = {
    "hidden_dims": _Rule("must be a list of 1 to 8 widths from 1 to 8192", _is_widths),
    "learning_rate": _Rule(
        "must be a number above 0 and at most 10", lambda v: _is_number(v) and 0 < v <= 10
    ),
    "batch_size": _Rule(
        "must be a whole number from 1 to 1048576", lambda v: _is_integer(v) and 1 <= v <= 2**20
    ),
    "epochs": _Rule(
        "must be a whole number from 1 to 100000", lambda v: _is_integer(v) and 1 <= v <= 100_000
    ),
    "dropout": _Rule("must be a number from 0 to below 1", lambda v: _is_number(v) and 0 <= v < 1),
    "weight_decay": _Rule(
        "must be a number from 0 to 100", lambda v: _is_number(v) and 0 <= v <= 100
    ),
    "label_smoothing": _Rule(
        "must be a number from 0 to below 1", lambda v: _is_number(v) and 0 <= v < 1
    ),
    "activation": _Rule(f"must be one of {', '.join(ACTIVATIONS)}", lambda v: v in ACTIVATIONS),
}


def problem_with(name: str, value: Any) -> str | None:
    """Returns the rule that `value` breaks as hyperparameter `name`, or None."""
    rule = _RULES[name]
    return None if rule.holds(value) else f"{rule.text}, got {value!r}"
