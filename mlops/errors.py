"""Every error this project raises on purpose.

    MlopsError
    ├── InputError           exit 2: what the user gave cannot be used
    │   ├── SettingsError    a YAML file or a flag
    │   └── TableError       a table or a column of it
    ├── TrackingError        exit 2: the MLflow store cannot be used
    ├── RecordError          exit 1: the MLflow store failed once the study was under way
    ├── StudyError           exit 1: the study ran and failed
    ├── ServingError         exit 1: the endpoint or the workers of a table failed
    ├── RemoteJobError       exit as the job on the cluster: it failed there
    └── RequestError         a request to the endpoint is refused, with an HTTP status

A message states the rule, then the value, then the remedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class MlopsError(Exception):
    """Base of every error in this module; `exit_code` is the job's exit status."""

    exit_code = 1


class InputError(MlopsError, ValueError):
    """What the user gave cannot be used; nothing has been trained or recorded.

    Args:
        problems: One line a problem, or a single line.
    """

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class SettingsError(InputError):
    """A setting is unknown, has the wrong type, or breaks a rule."""


class TableError(InputError):
    """A table cannot be read, or cannot be learned from."""


class TrackingError(MlopsError):
    """The MLflow store cannot be reached or refuses what it is given."""

    exit_code = 2


class RecordError(MlopsError):
    """The MLflow store has failed a study that is under way; some of it may be on record."""


class StudyError(MlopsError):
    """A study ended without a usable model."""


class ServingError(MlopsError):
    """The endpoint did not start, or Ray ended under it, or the workers of a table failed."""


class RemoteJobError(MlopsError):
    """A job on a cluster failed.

    Args:
        message: What is known of it.
        exit_code: Its exit status.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        self.exit_code = exit_code
        super().__init__(message)


class Detail(NamedTuple):
    """One thing that is wrong with a request.

    Attributes:
        row: Position of the row in the request, from 0; None where it is no one row.
        field: The column, or the key of the request; None where it is none.
        message: Rule, value, remedy.
    """

    row: int | None
    field: str | None
    message: str


class RequestError(MlopsError):
    """A request to the endpoint is refused.

    Args:
        status: The HTTP status of the answer.
        code: What a program may tell refusals apart by, such as `missing_column`.
        message: Rule, value, remedy, in a line.
        details: Where in the request, if that can be said.
    """

    def __init__(
        self, status: int, code: str, message: str, details: Sequence[Detail] = ()
    ) -> None:
        self.status = status
        self.code = code
        self.message = message
        self.details = tuple(details)
        super().__init__(message)


def first_line(error: BaseException) -> str:
    """Returns an error's first line, at most 200 characters of it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
