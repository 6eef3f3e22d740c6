"""The parent run of a study: its settings, its table of trials, its best model."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mlops.errors import TrackingError
from mlops.tracking import registry
from mlops.tracking.card import make_card
from mlops.tracking.dataset import log_dataset
from mlops.tracking.model import log_model
from mlops.tracking.pictures import log_confusion_matrix
from mlops.tracking.store import Store, active_run_from_environment, explained

if TYPE_CHECKING:
    import numpy as np

    from mlops.data.table import Parts
    from mlops.tracking.pyfunc import Predictor

# MLflow cuts longer values.
LONGEST_PARAM = 6000


class StudyRun:
    """A study's run, made here; under `mlflow run` it is the one made there.

    Args:
        store: Where the run is.
        study: The study's name.
        settings: The job's resolved settings.
        parts: The table.
        packing: How trials are divided into packs, which fixes what the search proposes.

    Attributes:
        store: Where the run is.
        run_id: Its id.
    """

    def __init__(
        self,
        store: Store,
        study: str,
        settings: Mapping[str, Any],
        parts: Parts,
        packing: Mapping[str, int],
    ) -> None:
        self.store, self._client = store, store.client
        self._study, self._parts = study, parts
        given = active_run_from_environment()
        if given is None:
            run = self._client.create_run(store.experiment_id, run_name=study)
        else:
            run = self._client.get_run(given)
            self._client.update_run(given, name=study)
        self.run_id: str = run.info.run_id
        try:
            # What `mlflow run` has recorded as text cannot be recorded again in other words.
            self._log_params(_flat(settings), besides=run.data.params)
            for name, value in {"study": study, **packing}.items():
                self._client.set_tag(self.run_id, name, str(value))
            self._client.log_dict(self.run_id, dict(settings), "settings.yaml")
            log_dataset(store, self.run_id, parts)
        except BaseException as error:
            with suppress(TrackingError):
                self.end(error)
            raise

    def end(self, error: BaseException | None = None) -> None:
        """Ends the run: as finished, as failed, or as killed when the user interrupted it.

        Raises:
            TrackingError: The store does not take it.
        """
        status = "FINISHED" if error is None else "FAILED"
        if isinstance(error, KeyboardInterrupt):
            status = "KILLED"
        with explained(self.store):
            self._client.set_terminated(self.run_id, status)

    def _log_params(self, params: Mapping[str, Any], besides: Mapping[str, str] = {}) -> None:
        from mlflow.entities import Param

        given = {name: value for name, value in params.items() if value is not None}
        texts = {name: str(value)[:LONGEST_PARAM] for name, value in given.items()}
        new = [Param(name, text) for name, text in texts.items() if name not in besides]
        self._client.log_batch(self.run_id, params=new)

    def log_trials(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Records the table of trials, as trials.csv."""
        flat = [_flat({**row, **row["params"], "params": None}) for row in rows]
        text = io.StringIO()
        names = dict.fromkeys(name for row in flat for name in row if name != "params")
        writer = csv.DictWriter(text, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(flat)
        self._client.log_text(self.run_id, text.getvalue(), "trials.csv")

    def log_best(
        self,
        best: Mapping[str, Any],
        predictor: Predictor,
        metrics: Mapping[str, float],
        confusion: np.ndarray,
        model_name: str,
    ) -> dict[str, Any]:
        """Records the best trial's model with its scores and registers it as the candidate.

        Args:
            best: The trial's row of the table.
            predictor: The model.
            metrics: Its loss, accuracy and F1 on each part.
            confusion: [C, C] int64 on the test part, actual by predicted.
            model_name: Name in the registry.

        Returns:
            What the job reports: scores, model and version.
        """
        parts = self._parts
        self._client.set_tag(self.run_id, "best_trial", str(best["trial"]))
        self._log_params({f"best_{name}": value for name, value in best["params"].items()})
        self._client.log_dict(self.run_id, dict(best), "best_trial.json")
        log_confusion_matrix(self.store, self.run_id, confusion, predictor.classes)
        model = log_model(
            self.store,
            self.run_id,
            mlp=predictor.mlp,
            hyperparameters=predictor.hyperparameters,
            encoder=predictor.encoder,
            classes=predictor.classes,
            target_name=predictor.target_name,
            example=parts.test.frame,
            metrics=dict(metrics),
            card=make_card(self._study, parts, predictor, metrics, confusion),
        )
        tags = {"study": self._study, "data_digest": parts.digest, "data": parts.name}
        description = (
            f"Predicts `{predictor.target_name}` of {parts.name}; test accuracy "
            f"{metrics['test_accuracy']:.4f}, best of {self._study}."
        )
        version = registry.register(
            self.store,
            model,
            model_name,
            alias=registry.CANDIDATE,
            tags=tags,
            description=description,
        )
        return {
            **metrics,
            "model": {
                "name": model_name,
                "version": version,
                "alias": registry.CANDIDATE,
                "uri": model.uri,
            },
        }


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens sections into dotted names, as the flags have them."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value and name != "space":
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
