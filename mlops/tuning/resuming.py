"""A study that goes on: what was done of it, and that it is still the same study."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mlops.errors import InputError
from mlops.nn.records import MERIT, NO_MERIT, merit
from mlops.settings.sections import TrackingSettings
from mlops.tracking.store.store import Store, open_store, prepare_environment
from mlops.tracking.study.record import (
    StudyRecord,
    TrialRecord,
    add_calls,
    find_study,
    of_started_trials,
    read_ends,
    read_trials,
    without_interruptions,
)
from mlops.tracking.study.spool import Call, Spool, read_spool

if TYPE_CHECKING:
    from mlops.tracking.study.study_run import StudyRun

# Settings without which a study's trials would be others.
SAME = (
    "metric",
    "seed",
    "epochs",
    "space",
    "defaults",
    "search",
    "pruning",
    "pack_size",
    "resources.precision",
    "data.split_seed",
    "data.group",
    "data.time",
    "data.validation_fraction",
    "data.test_fraction",
)

_ABSENT = object()


@dataclass(frozen=True)
class Before:
    """What was done of a study; nothing of a new one.

    Attributes:
        trials: Its trials, by MLflow and by what was not sent.
        to_keep: Those of them that need not be trained again.
        ends: What `max_evals` was.
        unsent: The calls that may not have been sent.
        weights: Of the best trial that has ended, as safetensors; empty where there is none.
    """

    trials: Mapping[int, TrialRecord] = field(default_factory=dict)
    to_keep: Mapping[int, TrialRecord] = field(default_factory=dict)
    ends: Sequence[int] = ()
    unsent: Sequence[Call] = ()
    weights: bytes = b""


def open_record(tracking: TrackingSettings) -> Store:
    """Opens the store that studies are on record in.

    Raises:
        TrackingError: It cannot be used.
    """
    prepare_environment(retries=0)
    return open_store(tracking.uri, tracking.experiment)


def recorded_settings(study: str | None, tracking: TrackingSettings) -> dict[str, Any]:
    """Reads what a study that is to be resumed was begun with, but for that run's own concerns.

    Args:
        study: Its name; None for the last one.
        tracking: Where it is on record.

    Raises:
        InputError: There is no such study.
        TrackingError: The store cannot be asked.
    """
    record = recorded_study(open_record(tracking), study)
    settings = {**record.settings, "study": record.name, "tracking": tracking.model_dump()}
    this_time = {"time_budget": None, "target": None, "address": None}
    return {**settings, "max_evals": max(record.ends), **this_time}


def recorded_study(store: Store, name: str | None) -> StudyRecord:
    """Finds the study to go on with: by name, or the last one.

    Raises:
        InputError: There is none, or it is of a kind that there is no more.
        TrackingError: The store cannot be asked.
    """
    record = find_study(store, name)
    if record is None:
        wanted = f"`{name}`" if name is not None else "any"
        raise InputError(
            f"study: must be on record in {store.display_uri} to be resumed, got none "
            f"({wanted} in experiment {store.experiment_name}); leave --resume out to begin it"
        )
    _check_merit(record)
    return replace(record, settings=_without_gone(record))


def _without_gone(record: StudyRecord) -> dict[str, Any]:
    """Returns a study's settings without those that are gone and were not used."""
    resources = dict(record.settings.get("resources", {}))
    if resources.pop("cpu_workers", 0) != 0:
        raise InputError(
            "study: must have been begun without resources.cpu_workers to be resumed, got "
            f"`{record.name}` of {record.settings['resources']['cpu_workers']}, and it is gone "
            "since 0.2; begin another --study"
        )
    return {**record.settings, "resources": resources}


def _check_merit(record: StudyRecord) -> None:
    # The first version was not recorded.
    version = record.packing.get("merit", 1)
    if version != MERIT:
        raise InputError(
            f"study: must tell equal scores apart by version {MERIT} of the rule to be resumed, "
            f"got `{record.name}` of version {version}; go on with it under the release that it "
            "was begun with, or begin another --study"
        )


def check_same(record: StudyRecord, settings: Mapping[str, Any], max_evals: int) -> None:
    """Checks that settings are those of a study, as far as they make its trials.

    Raises:
        InputError: They are not; a line for each difference.
    """
    pairs = [(name, _at(record.settings, name), _at(settings, name)) for name in SAME]
    problems = [
        f"{name}: must be what it was to resume `{record.name}`, got {now}, was {was}; leave it "
        "out, or begin another --study"
        for name, was, now in pairs
        if was != now and was is not _ABSENT
    ]
    if max_evals < max(record.ends):
        problems.append(
            f"max_evals: must be at least what it was to resume `{record.name}`, got {max_evals}, "
            f"was {max(record.ends)}; leave it out, or ask for more"
        )
    if problems:
        raise InputError(problems)


def _at(settings: Mapping[str, Any], name: str) -> Any:
    """Returns the setting of a dotted name; a study of before it was there has none."""
    value: Any = settings
    for part in name.split("."):
        value = value.get(part, _ABSENT) if isinstance(value, Mapping) else _ABSENT
    return value


def check_table(record: StudyRecord, digest: str, name: str) -> None:
    """Checks that a table is the study's.

    Raises:
        InputError: It is not.
    """
    if digest != record.data_digest:
        raise InputError(
            f"data: must be the table that `{record.name}` was begun with, got {name} of digest "
            f"{digest}, was {record.data_digest}; bring that table back, or begin another --study"
        )


def read_before(record: StudyRecord, run: StudyRun, spool: Spool, metric: str) -> Before:
    """Gathers what was done of a study that this process holds, and goes on with its spool.

    Args:
        record: The study.
        run: Its run.
        spool: What it has not sent.
        metric: What its trials are compared by.

    Raises:
        InputError: The spool cannot be written.
        TrackingError: The store cannot be asked.
    """
    spool.open(record.run_id)
    calls, problems = read_spool(spool.folder)
    unsent = of_started_trials(calls)
    for problem in problems:
        print(problem, file=sys.stderr, flush=True)
    trials = read_trials(run.store, record.run_id)
    add_calls(trials, unsent)
    best = _best(trials, metric)
    weights = None if best is None else run.weights(best)
    # A best trial whose weights are lost is trained again; its record stays as it is.
    to_keep = {n: trial for n, trial in trials.items() if weights is not None or n != best}
    ends = read_ends(run.store, record.run_id)
    return Before(trials, to_keep, ends, without_interruptions(unsent), weights or b"")


def _best(trials: Mapping[int, TrialRecord], metric: str) -> int | None:
    """Returns the best trial that has ended, duplicates left out."""
    merits = {
        number: merit(metric, trial.result["metrics"], trial.result["best_epoch"], number)
        for number, trial in trials.items()
        if trial.result is not None and trial.duplicate_of is None
    }
    best = min(merits, key=merits.__getitem__, default=None)
    return None if best is None or merits[best] == NO_MERIT else best
