"""What a study leaves when its search is over: the table of trials, the best one as a model."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mlops.data.notes import to_json
from mlops.errors import RecordError, StudyError, TrackingError
from mlops.nn.tasks.metrics import METRICS
from mlops.tracking.store.store import patiently

if TYPE_CHECKING:
    from mlops.tracking.pyfunc import Predictor
    from mlops.tracking.study.study_run import StudyRun
    from mlops.tuning.execution import Found
    from mlops.tuning.watching.ledger import Ledger


def warm_up(proposed: threading.Event) -> None:
    """Imports what the model needs, when the searcher, in the same process, has no more to do."""
    _collect_garbage()
    proposed.wait()
    gc.disable()
    from mlops.tracking.models import model
    from mlops.tracking.study import pictures

    model.warm_up()
    pictures.warm_up()
    _collect_garbage()


def conclude(found: Found, warming: Future[None]) -> dict[str, Any]:
    """Records the trials; then, while Ray ends, the best one's model, which is registered.

    Args:
        found: What came of the search.
        warming: The import of what the model needs.

    Returns:
        The best trial, its scores, the model and whether it is champion now, JSON values.

    Raises:
        StudyError: No trial has a score, or the study had to be stopped.
        TrackingError: The store fails.
        KeyboardInterrupt: The user has stopped the study.
    """
    ready, stop = found.ready, found.stop
    run = ready.run.result()
    rows = [row.to_dict() for row in found.ledger.ordered()]
    patiently(run.store, run.hold)
    patiently(run.store, lambda: run.log_trials(rows))
    if stop.by_user:
        raise KeyboardInterrupt
    if stop.error is not None:
        raise StudyError(f"{stop.error}; resume it when the cluster has workers again")
    # torch exports one network at a time.
    wait([warming])
    recording = ready.means.background.submit(_log_best, found, run)
    try:
        ready.means.connection.close()
        return recording.result()
    finally:
        # Who interrupts now still gets a model that is recorded as a whole.
        wait([recording])


@contextmanager
def ended(run: Future[StudyRun], again: str) -> Iterator[None]:
    """Ends the study's run, if it could be made, as what happens here ends.

    Args:
        run: The study's.
        again: The command that goes on, told unless it ends well.

    Raises:
        RecordError: The store has failed since the run was made.
    """
    try:
        yield
        run.result().end()
    except BaseException as error:
        if run.exception() is not None:
            raise
        with suppress(TrackingError):
            run.result().end(error)
        print(f"to go on: {again}", file=sys.stderr)
        if isinstance(error, TrackingError):
            raise RecordError(str(error)) from error
        raise


def told(found: Found, concluded: Mapping[str, Any]) -> dict[str, Any]:
    """Tells people what a study has come to, and returns it for programs, JSON values."""
    plan, run = found.ready.plan, found.ready.run.result()
    ledger, stopped = found.ledger, found.stop.reason
    _tell(concluded, run.store.display_uri)
    if stopped is not None:
        print(f"{stopped}; to go on: {plan.keeping.again}", file=sys.stderr)
    return {
        "study": plan.name,
        "run_id": run.run_id,
        "tracking_uri": run.store.display_uri,
        "trials": len(ledger.rows),
        "outcomes": ledger.outcomes(),
        "stopped": stopped,
        **concluded,
        "notes": to_json(found.ready.parts.notes),
        "tracking_seconds_per_record": ledger.tracking_seconds / max(1, ledger.epochs),
    }


def _collect_garbage() -> None:
    """Searches for garbage again, but not among what was imported, which stays."""
    gc.freeze()
    gc.enable()


def _log_best(found: Found, run: StudyRun) -> dict[str, Any]:
    """Scores the best trial's model on every part, records and registers it."""
    from mlops.tracking.models import promotion
    from mlops.tuning import scoring

    ready, ledger = found.ready, found.ledger
    best, model_name = ledger.best, ready.plan.keeping.tracking.model_name
    if best is None:
        raise StudyError(_no_score(ledger))
    weights = ledger.weights.get(best.trial)
    if weights is None:
        raise StudyError(
            f"the best trial, {best.trial}, must have its weights, got none: it was trained again "
            "on another kind of machine and is not quite the same; --resume trains it once more"
        )
    parts, store = ready.parts, run.store
    predictor = scoring.build(best.params, weights, ready.encoder, ready.task, parts.target_name)
    metrics, confusion = scoring.score(predictor, parts)
    row = best.to_dict()
    logged = patiently(store, lambda: run.log_best(row, predictor, metrics, confusion, model_name))
    version, metric = logged["model"]["version"], METRICS[ledger.metric]

    def score_on_test(model: Predictor) -> float:
        return scoring.score_part(model, scoring.with_columns_of(model, parts.test))[0][metric.name]

    promoted = patiently(
        store,
        lambda: promotion.challenge(store, model_name, version, metric, score_on_test),
    )
    return {"best": row, **logged, "promotion": asdict(promoted)}


def _no_score(ledger: Ledger) -> str:
    reasons = [row.reason for row in ledger.ordered() if row.reason]
    return (
        f"at least one trial must end with a score, got {len(ledger.rows)} without; "
        f"the first one failed because {reasons[0] if reasons else 'it was stopped'}"
    )


def _tell(concluded: Mapping[str, Any], store: str) -> None:
    model, promoted = concluded["model"], concluded["promotion"]
    crowned = promoted["champion"] == model["version"]
    print(
        f"test accuracy {concluded['test_accuracy']:.4f} by trial {concluded['best']['trial']}; "
        f"{model['name']} version {model['version']} in {store} is now "
        f"{'champion' if crowned else 'candidate'}: {promoted['reason']}",
        file=sys.stderr,
    )
