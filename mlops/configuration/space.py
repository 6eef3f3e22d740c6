"""The search space: distributions over hyperparameters, read from YAML.

    learning_rate: {loguniform: [1e-4, 1e-2]}
    batch_size: {choice: [32, 64, 128]}
    regularization:                       # a choice between sub-spaces; its name is a label only
      choice:
        - {dropout: {uniform: [0.1, 0.5]}, weight_decay: 0}
        - {dropout: 0, weight_decay: {loguniform: [1e-6, 1e-2]}}

Searchers see a flat space: every distribution has a path, such as `regularization.1.weight_decay`,
and a choice is the index of its option. A point gives a value to every path; `resolve` follows the
chosen branches and ignores the rest. So one form serves every searcher, conditional or not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlops.configuration.hyperparameters import NAMES, problem_with
from mlops.errors import SettingsError

INTEGERS = ("batch_size", "epochs")
REALS = ("learning_rate", "dropout", "weight_decay", "label_smoothing")


@dataclass(frozen=True)
class Uniform:
    """A real number from `low` to `high`; evenly in its logarithm if `log`."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Int:
    """A whole number from `low` to `high`, both included."""

    low: int
    high: int


@dataclass(frozen=True)
class Choice:
    """One of the options: values, or sub-spaces with distributions of their own."""

    options: tuple[Any, ...]


Distribution = Uniform | Int | Choice
Point = dict[str, float | int]


@dataclass(frozen=True)
class SearchSpace:
    """A validated search space.

    Attributes:
        entries: A distribution, or a constant, by name.
    """

    entries: Mapping[str, Any]

    @classmethod
    def parse(cls, spec: Mapping[str, Any]) -> SearchSpace:
        """Reads a space as YAML gives it.

        Raises:
            SettingsError: With every problem, a line each.
        """
        parser = _Parser()
        space = parser.space(spec, "space", frozenset())
        if not parser.problems and not space.paths():
            parser.problems.append(
                "space: must vary at least one hyperparameter, got none; "
                "add one, for example `learning_rate: {loguniform: [1e-4, 1e-2]}`"
            )
        if parser.problems:
            raise SettingsError(parser.problems)
        return space

    def paths(self) -> dict[str, Distribution]:
        """Returns every distribution by its path, branches included, in a fixed order."""
        return dict(self._walk(""))

    def _walk(self, prefix: str) -> Iterator[tuple[str, Distribution]]:
        for name, entry in self.entries.items():
            path = prefix + name
            if isinstance(entry, (Uniform, Int, Choice)):
                yield path, entry
            if isinstance(entry, Choice):
                for i, option in enumerate(entry.options):
                    if isinstance(option, SearchSpace):
                        yield from option._walk(f"{path}.{i}.")

    def resolve(self, point: Mapping[str, float | int], prefix: str = "") -> dict[str, Any]:
        """Returns the hyperparameters a point stands for, as JSON values."""
        params: dict[str, Any] = {}
        for name, entry in self.entries.items():
            path = prefix + name
            if not isinstance(entry, Choice):
                params[name] = _value(entry, point, path)
                continue
            i = int(point[path])
            option = entry.options[i]
            if isinstance(option, SearchSpace):
                params.update(option.resolve(point, f"{path}.{i}."))
            else:
                params[name] = list(option) if isinstance(option, tuple) else option
        return params

    def locate(self, params: Mapping[str, Any]) -> Point | None:
        """Returns the point that resolves to `params`, or None when they lie outside the space.

        Paths in branches not taken get a value too (the middle), since searchers want all.
        """
        point = {path: _middle(entry) for path, entry in self.paths().items()}
        found = self._locate(params, "")
        return None if found is None else {**point, **found}

    def _locate(self, params: Mapping[str, Any], prefix: str) -> Point | None:
        point: Point = {}
        for name, entry in self.entries.items():
            path = prefix + name
            if isinstance(entry, Choice):
                found = self._locate_option(entry, name, params, path)
                if found is None:
                    return None
                point.update(found)
            elif isinstance(entry, (Uniform, Int)):
                if not entry.low <= params[name] <= entry.high:
                    return None
                point[path] = params[name]
            elif params[name] != _json(entry):
                return None
        return point

    def _locate_option(
        self, choice: Choice, name: str, params: Mapping[str, Any], path: str
    ) -> Point | None:
        for i, option in enumerate(choice.options):
            if isinstance(option, SearchSpace):
                found = option._locate(params, f"{path}.{i}.")
                if found is not None:
                    return {path: i, **found}
            elif params[name] == _json(option):
                return {path: i}
        return None


def _json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _value(entry: Any, point: Mapping[str, float | int], path: str) -> Any:
    if isinstance(entry, Int):
        return int(point[path])
    if isinstance(entry, Uniform):
        # A searcher's logarithm and exponential may step over an end by a rounding error.
        return min(max(float(point[path]), entry.low), entry.high)
    return _json(entry)


def _middle(entry: Distribution) -> float | int:
    if isinstance(entry, Choice):
        return 0
    if isinstance(entry, Int):
        return (entry.low + entry.high) // 2
    if entry.log:
        return math.sqrt(entry.low * entry.high)
    return (entry.low + entry.high) / 2


class _Parser:
    """Reads a space and notes every problem on the way."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def space(self, spec: Any, where: str, taken: frozenset[str]) -> SearchSpace:
        if not isinstance(spec, Mapping):
            self.problem(where, "must be a mapping of hyperparameters to distributions", spec)
            return SearchSpace({})
        entries = {}
        below = taken | {*spec}
        for name, value in spec.items():
            path = f"{where}.{name}"
            if name in taken:
                self.problem(path, "must be set once on the way to a branch", name)
            entries[name] = self.entry(name, value, path, below)
            below |= _names_below(entries[name])
        return SearchSpace(entries)

    def entry(self, name: str, value: Any, where: str, taken: frozenset[str]) -> Any:
        if name not in NAMES and not _is_branching(value):
            self.problem(
                where,
                f"must be one of {', '.join(NAMES)}, or a choice between sub-spaces",
                name,
            )
            return None
        if not isinstance(value, Mapping):
            return self.constant(name, value, where)
        if len(value) != 1 or next(iter(value)) not in ("uniform", "loguniform", "int", "choice"):
            self.problem(
                where, "must have exactly one of uniform, loguniform, int, choice", dict(value)
            )
            return None
        kind, argument = next(iter(value.items()))
        where = f"{where}.{kind}"
        if kind == "choice":
            return self.choice(name, argument, where, taken)
        return self.interval(name, kind, argument, where)

    def constant(self, name: str, value: Any, where: str) -> Any:
        value = number(value) if name in REALS else value
        if problem := problem_with(name, value):
            self.problems.append(f"{where}: {problem}")
        return tuple(value) if isinstance(value, list) else value

    def choice(self, name: str, options: Any, where: str, taken: frozenset[str]) -> Choice | None:
        if not isinstance(options, (list, tuple)) or not options:
            self.problem(where, "must be a list of at least one option", options)
            return None
        if name not in NAMES:
            return Choice(
                tuple(self.space(o, f"{where}[{i}]", taken) for i, o in enumerate(options))
            )
        values = tuple(self.constant(name, o, f"{where}[{i}]") for i, o in enumerate(options))
        for i, value in enumerate(values):
            if value in values[:i]:
                self.problem(f"{where}[{i}]", "must not repeat an option", _json(value))
        return Choice(values)

    def interval(self, name: str, kind: str, ends: Any, where: str) -> Distribution | None:
        kinds = {"int": INTEGERS, "uniform": REALS, "loguniform": REALS}
        if name not in kinds[kind]:
            right = "int or choice" if name in INTEGERS else "choice"
            right = "uniform, loguniform or choice" if name in REALS else right
            self.problem(where, f"{name} must be drawn by {right}", kind)
            return None
        if not isinstance(ends, (list, tuple)) or len(ends) != 2:
            self.problem(where, "must be a list of two numbers, [low, high]", ends)
            return None
        low, high = map(number, ends)
        wrong = [problem for end in (low, high) if (problem := problem_with(name, end))]
        self.problems += [f"{where}: {problem}" for problem in wrong]
        if wrong:
            return None
        if not low < high:
            self.problem(where, "low must be below high; swap the two or use a constant", ends)
        elif kind == "loguniform" and low <= 0:
            self.problem(where, "low must be above 0 to have a logarithm", low)
        return Int(low, high) if kind == "int" else Uniform(low, high, log=kind == "loguniform")

    def problem(self, where: str, rule: str, value: Any) -> None:
        self.problems.append(f"{where}: {rule}, got {value!r}")


def _names_below(entry: Any) -> set[str]:
    """Returns the hyperparameters that the branches of a choice may set."""
    spaces = entry.options if isinstance(entry, Choice) else ()
    return {
        name
        for space in spaces
        if isinstance(space, SearchSpace)
        for key, value in space.entries.items()
        for name in (key, *_names_below(value))
        if name in NAMES
    }


def _is_branching(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and list(value) == ["choice"]
        and isinstance(value["choice"], (list, tuple))
        and all(isinstance(option, Mapping) for option in value["choice"])
    )


def number(value: Any) -> Any:
    """Reads numbers that YAML 1.1 takes for text, such as 1e-4."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
