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
        KeyError: This version knows none of that name.
    """
    return BY_NAME[description.get("task", Classification.name)].from_json(description)
