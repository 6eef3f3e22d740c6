"""The kinds of tasks: what is handed to whoever trains, scores, records or serves."""

from __future__ import annotations

from typing import Any, TypeAlias

from mlops.nn.tasks.classification import Classification

Task: TypeAlias = Classification
"""What a prediction is; with a second kind, one of them."""

BY_NAME: dict[str, type[Task]] = {task.name: task for task in (Classification,)}


def task_of(description: dict[str, Any]) -> Task:
    """Returns the task that a model's description says; one without was of classes.

    Raises:
        ValueError: This version knows none of that name.
    """
    name = description.get("task", Classification.name)
    if name not in BY_NAME:
        raise ValueError(
            f"a model's task must be one of {', '.join(BY_NAME)}, got {name!r}; use the version of "
            "this package that wrote it"
        )
    return BY_NAME[name].from_json(description)
