"""The best model of a study: on record with its card, and in the registry as the candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mlops.tracking.models import registry
from mlops.tracking.models.card import make_card
from mlops.tracking.models.folder import EXAMPLE_ROWS
from mlops.tracking.models.model import discard_unregistered, log_model
from mlops.tracking.store.store import Store
from mlops.tracking.study.params import fit
from mlops.tracking.study.pictures import log_confusion_matrix

if TYPE_CHECKING:
    import numpy as np

    from mlops.data.table import Parts
    from mlops.tracking.pyfunc import Predictor

# Of a name of the user's, in a version's description and tags; a registry takes 5,000 letters.
LONGEST_TOLD = 500


@dataclass(frozen=True, eq=False)
class BestModel:
    """A study's best trial as a model.

    Attributes:
        study: The study's name.
        parts: The table.
        trial: The trial's row of the table of trials.
        predictor: The model.
        metrics: Its loss, accuracy and F1 on each part.
        confusion: [C, C] int64 on the test part, actual by predicted.
    """

    study: str
    parts: Parts
    trial: Mapping[str, Any]
    predictor: Predictor
    metrics: Mapping[str, float]
    confusion: np.ndarray


def record_best(store: Store, run_id: str, best: BestModel, name: str) -> dict[str, Any]:
    """Records a study's best trial, and its model as the candidate.

    Args:
        store: Where the run is.
        run_id: The study's run.
        best: The model.
        name: The registered model.

    Returns:
        What the job reports: scores, model and version.

    Raises:
        Exception: What the store answers.
    """
    from mlflow.entities import RunTag

    trial = best.trial
    # Not parameters, which cannot change when a study is extended.
    told = {"trial": trial["trial"], **trial["params"]}
    tags = [RunTag(f"best_{key}", str(value)) for key, value in told.items()]
    store.client.log_batch(run_id, tags=tags)
    store.client.log_dict(run_id, dict(trial), "best_trial.json")
    log_confusion_matrix(store, run_id, best.confusion, best.predictor.task.classes)
    version, uri = registry.registered(
        store, name, run_id, trial["trial"], trial["best_epoch"]
    ) or _register(store, run_id, best, name)
    model = {"name": name, "version": version, "alias": registry.CANDIDATE, "uri": uri}
    return {**best.metrics, "model": model}


def _register(store: Store, run_id: str, best: BestModel, name: str) -> tuple[int, str]:
    """Records a model as a version; what an earlier driver has left half done goes."""
    parts, data = best.parts, fit(best.parts.name, LONGEST_TOLD)
    discard_unregistered(store, run_id)
    model = log_model(
        store,
        run_id,
        replace(best.predictor, training_columns=tuple(parts.columns)),
        example=parts.test.table.take(parts.test.rows[:EXAMPLE_ROWS]).reset_index(drop=True),
        metrics=dict(best.metrics),
        card=make_card(best.study, parts, best.predictor, best.metrics, best.confusion),
    )
    tags = {
        "study": best.study,
        registry.TRIAL_TAG: str(best.trial["trial"]),
        registry.EPOCH_TAG: str(best.trial["best_epoch"]),
        "data_digest": parts.digest,
        "data": data,
    }
    target = fit(best.predictor.target_name, LONGEST_TOLD)
    description = (
        f"Predicts `{target}` of {data}; test accuracy {best.metrics['test_accuracy']:.4f}, "
        f"best of {best.study}."
    )
    version = registry.register(store, model, name, tags=tags, description=description)
    return version, model.uri
