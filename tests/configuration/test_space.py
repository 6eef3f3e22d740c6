"""The search space: what is drawn from it, what of it can be found again, and every rule."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops.configuration.hyperparameters import ACTIVATIONS, Hyperparameters
from mlops.configuration.space import Choice, Int, SearchSpace, Uniform
from mlops.errors import SettingsError

REALS = {
    "learning_rate": (1e-6, 10.0),
    "dropout": (0.0, 0.99),
    "weight_decay": (0.0, 100.0),
    "label_smoothing": (0.0, 0.99),
}
INTEGERS = {"batch_size": (1, 2**20), "epochs": (1, 100_000)}
WIDTHS = st.lists(st.integers(1, 8192), min_size=1, max_size=8)
NAMES = (*REALS, *INTEGERS, "hidden_dims", "activation")


def value_of(name: str) -> st.SearchStrategy[Any]:
    if name in REALS:
        return st.floats(*REALS[name])
    if name in INTEGERS:
        return st.integers(*INTEGERS[name])
    return WIDTHS if name == "hidden_dims" else st.sampled_from(ACTIVATIONS)


@st.composite
def entry_of(draw: st.DrawFn, name: str) -> Any:
    """A constant or a distribution that the rules allow."""
    kinds = ["constant", "choice"]
    kinds += ["uniform", "loguniform"] if name in REALS else []
    kinds += ["int"] if name in INTEGERS else []
    kind = draw(st.sampled_from(kinds))
    if kind == "constant":
        return draw(value_of(name))
    if kind == "choice":
        return {"choice": draw(st.lists(value_of(name), min_size=1, max_size=4, unique_by=repr))}
    low, high = (REALS | INTEGERS)[name]
    if kind == "loguniform":
        low = max(low, 1e-8)
    number = st.integers if kind == "int" else st.floats
    ends = draw(st.tuples(number(low, high), number(low, high)).filter(lambda e: e[0] < e[1]))
    return {kind: list(ends)}


@st.composite
def spec_of(draw: st.DrawFn, names: tuple[str, ...] = NAMES, depth: int = 2) -> dict[str, Any]:
    """A mapping as YAML gives it, with choices between sub-spaces down to `depth`."""
    chosen = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    split = draw(st.integers(1, len(chosen))) if depth else len(chosen)
    spec = {name: draw(entry_of(name)) for name in chosen[:split]}
    below = tuple(chosen[split:])
    if below:
        branches = st.lists(spec_of(below, depth - 1), min_size=1, max_size=3)
        spec["branch" * (3 - depth)] = {"choice": draw(branches)}
    return spec


def draw_point(space: SearchSpace, data: st.DataObject) -> dict[str, float | int]:
    point: dict[str, float | int] = {}
    for path, entry in space.paths().items():
        if isinstance(entry, Choice):
            point[path] = data.draw(st.integers(0, len(entry.options) - 1))
        elif isinstance(entry, Int):
            point[path] = data.draw(st.integers(entry.low, entry.high))
        else:
            assert isinstance(entry, Uniform)
            point[path] = data.draw(st.floats(entry.low, entry.high))
    return point


def parse(spec: Any) -> SearchSpace:
    """Parses a space; one made of constants only is given something to vary."""
    try:
        return SearchSpace.parse(spec)
    except SettingsError as error:
        assert "must vary" in str(error)
        return SearchSpace.parse({**spec, "label": {"choice": [{}, {}]}})


@settings(deadline=None, max_examples=150)
@given(spec=spec_of(), data=st.data())
def test_a_point_can_be_found_again_from_what_it_stands_for(
    spec: dict[str, Any], data: st.DataObject
) -> None:
    space = parse(json.loads(json.dumps(spec)))
    params = space.resolve(draw_point(space, data))
    assert json.loads(json.dumps(params)) == params
    assert set(params) <= set(NAMES)
    # The hyperparameters that a branch not taken would set keep their defaults.
    complete = {**Hyperparameters().to_dict(), **params}
    assert Hyperparameters.from_dict(complete).to_dict() == complete
    located = space.locate(complete)
    assert located is not None
    assert located.keys() == space.paths().keys()
    assert space.resolve(located).items() <= complete.items()


@settings(deadline=None, max_examples=50)
@given(spec=spec_of())
def test_parsing_is_deterministic_and_leaves_the_mapping_alone(spec: dict[str, Any]) -> None:
    before = json.dumps(spec)
    first, second = parse(spec), parse(json.loads(before))
    assert json.dumps(spec) == before
    assert list(first.paths().items()) == list(second.paths().items())
    assert first == second


CONDITIONAL = {
    "regularization": {
        "choice": [
            {"dropout": {"uniform": [0.1, 0.5]}, "weight_decay": 0},
            {
                "dropout": 0,
                "decay": {
                    "choice": [
                        {"weight_decay": {"loguniform": [1e-6, 1e-2]}},
                        {"weight_decay": {"choice": [0.5, 1]}, "activation": "gelu"},
                    ]
                },
            },
        ]
    },
    "hidden_dims": {"choice": [[32], [64, 32]]},
    "batch_size": 64,
}


def test_paths_name_every_branch_in_order() -> None:
    assert list(SearchSpace.parse(CONDITIONAL).paths()) == [
        "regularization",
        "regularization.0.dropout",
        "regularization.1.decay",
        "regularization.1.decay.0.weight_decay",
        "regularization.1.decay.1.weight_decay",
        "hidden_dims",
    ]


@pytest.mark.parametrize(
    ("branch", "decay", "expected"),
    [
        (0, 0, {"dropout": 0.3, "weight_decay": 0}),
        (0, 1, {"dropout": 0.3, "weight_decay": 0}),
        (1, 0, {"dropout": 0, "weight_decay": 1e-4}),
        (1, 1, {"dropout": 0, "weight_decay": 1, "activation": "gelu"}),
    ],
)
def test_only_the_chosen_branches_count(branch: int, decay: int, expected: dict) -> None:
    space = SearchSpace.parse(CONDITIONAL)
    point = {
        "regularization": branch,
        "regularization.0.dropout": 0.3,
        "regularization.1.decay": decay,
        "regularization.1.decay.0.weight_decay": 1e-4,
        "regularization.1.decay.1.weight_decay": 1,
        "hidden_dims": 1,
    }
    assert space.resolve(point) == {**expected, "hidden_dims": [64, 32], "batch_size": 64}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, {"regularization": 1, "regularization.1.decay": 0, "hidden_dims": 1}),
        ({"dropout": 0.1, "weight_decay": 0.0}, {"regularization": 0}),
        ({"dropout": 0.5, "weight_decay": 0.0}, {"regularization": 0}),
        ({"dropout": 0.51, "weight_decay": 0.0}, None),
        ({"dropout": 0.3}, None),  # neither branch has both
        ({"weight_decay": 1.0, "activation": "gelu"}, {"regularization.1.decay": 1}),
        ({"weight_decay": 1.0}, None),  # that branch wants gelu
        ({"weight_decay": 1e-6}, {"regularization.1.decay.0.weight_decay": 1e-6}),
        ({"weight_decay": 1e-2}, {"regularization.1.decay.0.weight_decay": 1e-2}),
        ({"hidden_dims": [16]}, None),
        ({"batch_size": 32}, None),  # the constant is 64
    ],
)
def test_locate(changed: dict[str, Any], expected: dict[str, Any] | None) -> None:
    given = {**Hyperparameters(batch_size=64, dropout=0.0).to_dict(), **changed}
    point = SearchSpace.parse(CONDITIONAL).locate(given)
    if expected is None:
        assert point is None
    else:
        assert point is not None
        assert expected.items() <= point.items()


@pytest.mark.parametrize("drawn", [1e-4 * (1 - 1e-15), 1e-2 * (1 + 1e-15), 1e-3])
def test_rounding_does_not_step_over_an_end(drawn: float) -> None:
    space = SearchSpace.parse({"learning_rate": {"loguniform": [1e-4, 1e-2]}})
    assert 1e-4 <= space.resolve({"learning_rate": drawn})["learning_rate"] <= 1e-2


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"learning_rate": {"loguniform": ["1e-4", "1e-2"]}}, Uniform(1e-4, 1e-2, log=True)),
        ({"dropout": {"uniform": [0, "5e-1"]}}, Uniform(0, 0.5)),
        ({"weight_decay": {"choice": ["1e-4", 0]}}, Choice((1e-4, 0))),
        ({"batch_size": {"int": [16, 256]}}, Int(16, 256)),
        ({"hidden_dims": {"choice": [[64, 32]]}}, Choice(((64, 32),))),
        ({"activation": {"choice": ["relu"]}}, Choice(("relu",))),
    ],
)
def test_what_is_read(spec: Mapping[str, Any], expected: Any) -> None:
    assert list(SearchSpace.parse(spec).paths().values()) == [expected]


def test_a_constant_may_be_a_number_that_yaml_takes_for_text() -> None:
    space = SearchSpace.parse({"weight_decay": "1e-4", "dropout": {"uniform": [0.0, 0.5]}})
    assert space.resolve({"dropout": 0.25}) == {"weight_decay": 1e-4, "dropout": 0.25}


def test_two_branches_may_set_the_same_name() -> None:
    spec = {"a": {"choice": [{"dropout": 0.1}, {"dropout": {"uniform": [0.2, 0.3]}}]}}
    assert list(SearchSpace.parse(spec).paths()) == ["a", "a.1.dropout"]


# One problem each: the spec, and the line that says so.
RULES = {
    "unknown name": (
        {"momentum": {"uniform": [0, 1]}},
        "space.momentum: must be one of hidden_dims, learning_rate, batch_size, epochs, dropout, "
        "weight_decay, label_smoothing, activation, or a choice between sub-spaces, got 'momentum'",
    ),
    "unknown constant": (
        {"momentum": 0.9},
        "space.momentum: must be one of hidden_dims, learning_rate, batch_size, epochs, dropout, "
        "weight_decay, label_smoothing, activation, or a choice between sub-spaces, got 'momentum'",
    ),
    "name that is no text": (
        {7: {"uniform": [0, 1]}},
        "space.7: must be one of hidden_dims, learning_rate, batch_size, epochs, dropout, "
        "weight_decay, label_smoothing, activation, or a choice between sub-spaces, got 7",
    ),
    "unknown distribution": (
        {"dropout": {"normal": [0, 1]}},
        "space.dropout: must have exactly one of uniform, loguniform, int, choice, "
        "got {'normal': [0, 1]}",
    ),
    "two distributions": (
        {"dropout": {"uniform": [0, 0.1], "choice": [0]}},
        "space.dropout: must have exactly one of uniform, loguniform, int, choice, "
        "got {'uniform': [0, 0.1], 'choice': [0]}",
    ),
    "no distribution": (
        {"dropout": {}},
        "space.dropout: must have exactly one of uniform, loguniform, int, choice, got {}",
    ),
    "inverted": (
        {"dropout": {"uniform": [0.5, 0.1]}},
        "space.dropout.uniform: low must be below high; swap the two or use a constant, "
        "got [0.5, 0.1]",
    ),
    "empty interval": (
        {"batch_size": {"int": [32, 32]}},
        "space.batch_size.int: low must be below high; swap the two or use a constant, "
        "got [32, 32]",
    ),
    "no logarithm": (
        {"weight_decay": {"loguniform": [0, 0.1]}},
        "space.weight_decay.loguniform: low must be above 0 to have a logarithm, got 0",
    ),
    "one end": (
        {"dropout": {"uniform": [0.1]}},
        "space.dropout.uniform: must be a list of two numbers, [low, high], got [0.1]",
    ),
    "ends that are no list": (
        {"dropout": {"uniform": 0.1}},
        "space.dropout.uniform: must be a list of two numbers, [low, high], got 0.1",
    ),
    "end beyond the rule": (
        {"dropout": {"uniform": [0.0, 1.0]}},
        "space.dropout.uniform: must be a number from 0 to below 1, got 1.0",
    ),
    "end that is text": (
        {"dropout": {"uniform": [0.0, "half"]}},
        "space.dropout.uniform: must be a number from 0 to below 1, got 'half'",
    ),
    "end that is not a number": (
        {"dropout": {"uniform": [0.0, math.nan]}},
        "space.dropout.uniform: must be a number from 0 to below 1, got nan",
    ),
    "infinite end": (
        {"learning_rate": {"loguniform": [1e-4, math.inf]}},
        "space.learning_rate.loguniform: must be a number above 0 and at most 10, got inf",
    ),
    "end that is true": (
        {"dropout": {"uniform": [False, 0.5]}},
        "space.dropout.uniform: must be a number from 0 to below 1, got False",
    ),
    "fraction of a row": (
        {"batch_size": {"int": [0.5, 32]}},
        "space.batch_size.int: must be a whole number from 1 to 1048576, got 0.5",
    ),
    "whole numbers for a real": (
        {"learning_rate": {"int": [1, 2]}},
        "space.learning_rate.int: learning_rate must be drawn by uniform, loguniform or choice, "
        "got 'int'",
    ),
    "reals for a whole number": (
        {"batch_size": {"uniform": [16, 32]}},
        "space.batch_size.uniform: batch_size must be drawn by int or choice, got 'uniform'",
    ),
    "interval of widths": (
        {"hidden_dims": {"int": [16, 32]}},
        "space.hidden_dims.int: hidden_dims must be drawn by choice, got 'int'",
    ),
    "no options": (
        {"batch_size": {"choice": []}},
        "space.batch_size.choice: must be a list of at least one option, got []",
    ),
    "options that are no list": (
        {"activation": {"choice": "relu"}},
        "space.activation.choice: must be a list of at least one option, got 'relu'",
    ),
    "option that breaks the rule": (
        {"hidden_dims": {"choice": [[64], [0]]}},
        "space.hidden_dims.choice[1]: must be a list of 1 to 8 widths from 1 to 8192, got [0]",
    ),
    "option that is no list of widths": (
        {"hidden_dims": {"choice": [64, [32]]}},
        "space.hidden_dims.choice[0]: must be a list of 1 to 8 widths from 1 to 8192, got 64",
    ),
    "unknown activation": (
        {"activation": {"choice": ["relu", "swish"]}},
        "space.activation.choice[1]: must be one of relu, gelu, silu, tanh, got 'swish'",
    ),
    "repeated option": (
        {"batch_size": {"choice": [32, 64, 32]}},
        "space.batch_size.choice[2]: must not repeat an option, got 32",
    ),
    "repeated widths": (
        {"hidden_dims": {"choice": [[64], [64]]}},
        "space.hidden_dims.choice[1]: must not repeat an option, got [64]",
    ),
    "constant beyond the rule": (
        {"epochs": 0, "dropout": {"uniform": [0, 0.5]}},
        "space.epochs: must be a whole number from 1 to 100000, got 0",
    ),
    "constant of another type": (
        {"batch_size": 32.0, "dropout": {"uniform": [0, 0.5]}},
        "space.batch_size: must be a whole number from 1 to 1048576, got 32.0",
    ),
    "name taken twice on a path": (
        {"dropout": {"uniform": [0, 0.5]}, "a": {"choice": [{"dropout": 0.1}, {}]}},
        "space.a.choice[0].dropout: must be set once on the way to a branch, got 'dropout'",
    ),
    "name taken by a branch before it": (
        {"a": {"choice": [{"dropout": 0.1}, {}]}, "dropout": {"uniform": [0, 0.5]}},
        "space.a.choice[0].dropout: must be set once on the way to a branch, got 'dropout'",
    ),
    "name taken by two choices": (
        {
            "a": {"choice": [{"dropout": 0.1}, {"dropout": 0.2}]},
            "b": {"choice": [{"dropout": 0.3}, {"weight_decay": 0.2}]},
        },
        "space.b.choice[0].dropout: must be set once on the way to a branch, got 'dropout'",
    ),
    "no mapping": (
        ["dropout"],
        "space: must be a mapping of hyperparameters to distributions, got ['dropout']",
    ),
    "nothing": (
        None,
        "space: must be a mapping of hyperparameters to distributions, got None",
    ),
    "nothing to vary": (
        {"dropout": 0.1, "hidden_dims": [64]},
        "space: must vary at least one hyperparameter, got none; "
        "add one, for example `learning_rate: {loguniform: [1e-4, 1e-2]}`",
    ),
    "empty": (
        {},
        "space: must vary at least one hyperparameter, got none; "
        "add one, for example `learning_rate: {loguniform: [1e-4, 1e-2]}`",
    ),
}


@pytest.mark.parametrize(("spec", "line"), RULES.values(), ids=RULES)
def test_rule(spec: Any, line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        SearchSpace.parse(spec)
    assert caught.value.problems == [line]


def test_all_problems_are_reported_at_once() -> None:
    spec = {
        "momentum": 1,
        "dropout": {"uniform": [1, 2]},
        "batch_size": {"choice": [0, 32, 32]},
        "a": {"choice": [{"activation": "swish"}, {"b": {"choice": [{"epochs": {"int": [5]}}]}}]},
    }
    with pytest.raises(SettingsError) as caught:
        SearchSpace.parse(spec)
    assert [problem.split(": ")[0] for problem in caught.value.problems] == [
        "space.momentum",
        "space.dropout.uniform",
        "space.dropout.uniform",
        "space.batch_size.choice[0]",
        "space.batch_size.choice[2]",
        "space.a.choice[0].activation",
        "space.a.choice[1].b.choice[0].epochs.int",
    ]
