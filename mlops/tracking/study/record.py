"""What MLflow knows of a study: read back, so that it can be resumed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlops.errors import InputError
from mlops.nn.records import Outcome
from mlops.tracking.store.store import Store, explained
from mlops.tracking.study.begun import ENDS_TAG, PACKING_TAG, check_versions, read_settings
from mlops.tracking.study.spool import Call

if TYPE_CHECKING:
    from mlflow.entities import Run

RESULT_TAG = "result"
# The same of a trial that was interrupted, until it goes on.
SO_FAR_TAG = "result_so_far"
_PACKING = ("pack_size", PACKING_TAG, "merit")


@dataclass
class TrialRecord:
    """A trial, by its run or by what was still to be sent of it.

    Attributes:
        params: Its configuration.
        run_id: Its run; None where none has been made.
        status: The run's status.
        duplicate_of: The trial that it repeats.
        result: The fields of a `TrialResult` without weights, once it has ended by itself.
    """

    params: dict[str, Any]
    run_id: str | None = None
    status: str | None = None
    duplicate_of: int | None = None
    result: dict[str, Any] | None = None

    @property
    def ended(self) -> bool:
        """Whether it need not be trained again."""
        return self.result is not None

    @property
    def sent(self) -> bool:
        """Whether its run says all of it."""
        return self.ended and self.status in ("FINISHED", "FAILED")


@dataclass
class StudyRecord:
    """A study on record.

    Attributes:
        name: The study.
        run_id: Its run.
        settings: The job's settings when the study was begun.
        data_digest: Of the table.
        packing: How trials are divided into packs: the fields of `Packing`.
        ends: What `max_evals` was, each time.
    """

    name: str
    run_id: str
    settings: dict[str, Any]
    data_digest: str
    packing: dict[str, int]
    ends: list[int]


def find_study(store: Store, name: str | None) -> StudyRecord | None:
    """Reads a study; not its trials, of which there are more as long as it has a driver.

    Args:
        store: Where to look.
        name: The study; None for the last one that was begun.

    Raises:
        InputError: It cannot be read what the study was begun as, or its table is not read so now.
        TrackingError: The store cannot be asked.
    """
    with explained(store):
        if name is None:
            last = next(iter(_study_runs(store, None)), None)
            name = None if last is None else last.data.tags.get("study")
        run = None if name is None else _first_run(store, name)
        if run is None:
            return None
        tags = run.data.tags
        check_versions(tags)
        for needed in ("data_digest", ENDS_TAG, *_PACKING[:2]):
            if needed not in tags:
                raise InputError(
                    f"study: must have its tag {needed} to be resumed, got `{name}` without; put "
                    "it back, or begin another --study"
                )
        return StudyRecord(
            name=tags["study"],
            run_id=run.info.run_id,
            settings=read_settings(tags),
            data_digest=tags["data_digest"],
            packing={name: int(tags[name]) for name in _PACKING if name in tags},
            ends=_ends(run),
        )


def read_ends(store: Store, run_id: str) -> list[int]:
    """Reads what `max_evals` was, each time.

    Raises:
        TrackingError: The store cannot be asked.
    """
    with explained(store):
        return _ends(store.client.get_run(run_id))


def read_trials(store: Store, run_id: str) -> dict[int, TrialRecord]:
    """Reads the trials of a study's run, by number.

    Raises:
        TrackingError: The store cannot be asked.
    """
    with explained(store):
        return dict(_trials(store, run_id))


def study_exists(store: Store, name: str) -> bool:
    """Tells whether there is a study of this name.

    Raises:
        TrackingError: The store cannot be asked.
    """
    with explained(store):
        return _first_run(store, name) is not None


def is_younger(store: Store, name: str, run_id: str) -> bool:
    """Tells whether another process has made a study of this name a little earlier.

    Raises:
        TrackingError: The store cannot be asked.
    """
    with explained(store):
        first = _first_run(store, name)
        return first is not None and first.info.run_id != run_id


def add_calls(trials: dict[int, TrialRecord], calls: Iterable[Call]) -> None:
    """Adds to trials what the calls that may not have been sent say of them."""
    for kind, *values in calls:
        if kind == "start":
            number, params, tags = values[:3]
            original = tags.get("duplicate_of")
            trial = TrialRecord(params, duplicate_of=None if original is None else int(original))
            known = trials.setdefault(number, trial)
            if not known.params:  # its run has been made, but not filled
                known.params, known.duplicate_of = trial.params, trial.duplicate_of
        elif kind == "end" and values[0] in trials:
            trial, result = trials[values[0]], values[1]
            if trial.result is None and result["outcome"] != Outcome.INTERRUPTED.value:
                trial.result = result
        elif kind == "copy" and set(values) <= trials.keys():
            trials[values[0]].result = trials[values[1]].result


def without_interruptions(calls: Sequence[Call]) -> list[Call]:
    """Leaves out what says that trials were interrupted, for now they go on."""
    kept: list[Call] = []
    interrupted: set[int] = set()
    for call in calls:
        if call[0] == "end":
            stopped = call[2]["outcome"] == Outcome.INTERRUPTED.value
            (interrupted.add if stopped else interrupted.discard)(call[1])
            if stopped:
                continue
        elif call[0] == "copy" and call[2] in interrupted:
            continue
        kept.append(call)
    return kept


def of_started_trials(calls: Iterable[Call]) -> list[Call]:
    """Leaves out what is said of trials whose start was lost with a damaged line."""
    kept: list[Call] = []
    started: set[int] = set()
    for kind, first, *rest in calls:
        if kind == "start":
            started.add(first)
        elif kind == "record":
            first = [record for record in first if record["trial"] in started]
        elif kind in ("end", "copy") and first not in started:
            continue
        kept.append([kind, first, *rest])
    return kept


def _first_run(store: Store, name: str) -> Run | None:
    """Returns the run of a study; another process's, made a little later, is not yet withdrawn."""
    runs = _study_runs(store, name)
    return min(runs, key=lambda run: (run.info.start_time, run.info.run_id), default=None)


def _study_runs(store: Store, name: str | None) -> list[Run]:
    """Returns the first runs of a study, or the last ones of all."""
    query = f"tags.{PACKING_TAG} LIKE '%'"
    if name is not None:
        query += f" and tags.study = {_quoted(name)}"
    order = [f"attributes.start_time {'DESC' if name is None else 'ASC'}"]
    return list(
        store.client.search_runs([store.experiment_id], query, max_results=10, order_by=order)
    )


def _ends(run: Run) -> list[int]:
    return [int(end) for end in run.data.tags[ENDS_TAG].split(",")]


def _quoted(text: str) -> str:
    for quote in "'\"":
        if quote not in text:
            return f"{quote}{text}{quote}"
    raise InputError(f"study: must not have both kinds of quotes, got {text}; choose another name")


def _trials(store: Store, run_id: str) -> Iterator[tuple[int, TrialRecord]]:
    query = f"tags.`mlflow.parentRunId` = '{run_id}'"
    token = None
    while True:
        page = store.client.search_runs(
            [store.experiment_id], query, max_results=1000, page_token=token
        )
        for run in page:
            if "trial" in run.data.tags:  # a user may have added runs
                yield _trial(run)
        token = page.token
        if not token:
            return


def _trial(run: Run) -> tuple[int, TrialRecord]:
    tags = run.data.tags
    original = tags.get("duplicate_of")
    result = json.loads(tags[RESULT_TAG]) if RESULT_TAG in tags else None
    if run.info.status not in ("FINISHED", "FAILED"):
        # It may say so already, but is not known to say all.
        result = None
    return int(tags["trial"]), TrialRecord(
        params={name: _value(text) for name, text in run.data.params.items()},
        run_id=run.info.run_id,
        status=run.info.status,
        duplicate_of=None if original is None else int(original),
        result=result,
    )


def _value(text: str) -> Any:
    """Reads what `str` made of a hyperparameter: numbers and lists are JSON, the rest is text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
