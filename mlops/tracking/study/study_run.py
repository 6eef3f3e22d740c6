"""The parent run of a study: its settings, its table of trials, its best model."""

from __future__ import annotations

import csv
import io
import json
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mlops.data.notes import to_json
from mlops.errors import InputError, RecordError, TrackingError
from mlops.tracking.store.experiment import active_run_from_environment
from mlops.tracking.store.lease import DriverTag, Lease
from mlops.tracking.store.store import Store, explained, patiently
from mlops.tracking.study.begun import (
    ENDS_TAG,
    ORIGIN_TAG,
    PACKING_TAG,
    SETTINGS,
    make_run,
    settings_tags,
    version_tags,
)
from mlops.tracking.study.best_model import BestModel, record_best
from mlops.tracking.study.dataset import log_dataset
from mlops.tracking.study.params import as_params
from mlops.tracking.study.record import (
    StudyRecord,
    is_younger,
    read_ends,
    study_exists,
)
from mlops.tracking.study.spool import Spool
from mlops.tracking.study.storage import WEIGHTS_FOLDER, weights_name

if TYPE_CHECKING:
    import numpy as np

    from mlops.data.table import Parts
    from mlops.tracking.pyfunc import Predictor

NOTES = "notes.json"


class StudyRun:
    """A study's run, held by this process; made by `create` or `resume`.

    Attributes:
        store: Where the run is.
        run_id: Its id.
    """

    def __init__(self, store: Store, run_id: str, study: str, parts: Parts, spool: Spool) -> None:
        self.store, self.run_id = store, run_id
        self._client = store.client
        self._study, self._parts = study, parts
        self._spool = spool
        self._lease = Lease(DriverTag(store, run_id, study))

    @classmethod
    def create(
        cls,
        store: Store,
        study: str,
        settings: Mapping[str, Any],
        parts: Parts,
        packing: Mapping[str, int],
        max_evals: int,
        spool: Spool,
    ) -> StudyRun:
        """Makes the run of a new study; under `mlflow run` it is the one made there.

        Args:
            store: Where to.
            study: The study's name.
            settings: The job's resolved settings.
            parts: The table.
            packing: How trials are divided into packs, which fixes what the search proposes.
            max_evals: Trials of the study.
            spool: Where the record is kept until it is sent.

        Raises:
            InputError: There is a study of this name, or the spool cannot be written.
            TrackingError: The store does not take it.
        """
        if patiently(store, lambda: study_exists(store, study)):
            raise _exists(study)
        tags = {"study": study, "data_digest": parts.digest, ENDS_TAG: str(max_evals)}
        tags |= {ORIGIN_TAG: uuid.uuid4().hex, **settings_tags(settings), **version_tags()}
        tags |= {name: str(value) for name, value in packing.items() if name != PACKING_TAG}
        tags[PACKING_TAG] = str(packing[PACKING_TAG])  # the last one
        run = patiently(store, lambda: make_run(store, study, tags))
        made = cls(store, run.info.run_id, study, parts, spool)
        try:
            patiently(store, made._lease.take)
            made._settle()
            # What `mlflow run` has recorded as text cannot be recorded again in other words.
            patiently(store, lambda: made._describe(settings, besides=run.data.params))
        except InputError:  # it is no study, or another process goes on with it already
            raise
        except BaseException as error:
            with suppress(TrackingError):
                made.end(error)
            raise
        return made

    @classmethod
    def resume(
        cls,
        store: Store,
        record: StudyRecord,
        parts: Parts,
        max_evals: int,
        spool: Spool,
    ) -> StudyRun:
        """Takes the run of a study that is to go on; what its spool holds is left to the caller.

        Raises:
            InputError: Another driver has it.
            TrackingError: The store does not take it.
        """
        run = cls(store, record.run_id, record.name, parts, spool)
        run._lease.take()
        try:
            store.client.update_run(record.run_id, "RUNNING")
            if not run._is_described():  # its driver died before
                known = store.client.get_run(record.run_id).data.params
                run._describe(record.settings, besides=known)
            # Another driver may have extended the study before this one took it.
            ends = read_ends(store, record.run_id)
            if max_evals not in ends:
                text = ",".join(map(str, [*ends, max_evals]))
                store.client.set_tag(record.run_id, ENDS_TAG, text)
        except BaseException as error:
            with suppress(TrackingError):
                run.end(error)
            raise
        return run

    def check(self) -> None:
        """Stops a driver whose study another one has taken, as far as is known.

        Raises:
            RecordError: So it is.
        """
        self._lease.check()

    def hold(self) -> None:
        """Makes sure, before something is recorded, that no other driver has taken the study.

        Raises:
            RecordError: One has.
            Exception: The store cannot be asked.
        """
        self._lease.hold()

    def weights(self, trial: int) -> bytes | None:
        """Reads the weights of a trial that was the best when it ended; None where they are lost.

        Raises:
            TrackingError: The store cannot be asked.
        """
        name = weights_name(trial)
        with suppress(OSError):
            return (self._spool.folder / name).read_bytes()
        return self.store.read_bytes(self.run_id, f"{WEIGHTS_FOLDER}/{name}")

    def end(self, error: BaseException | None = None) -> None:
        """Ends the run: as finished, as failed, or as killed when the user interrupted it.

        Raises:
            TrackingError: The store does not take it.
        """
        status = "FINISHED" if error is None else "FAILED"
        if isinstance(error, KeyboardInterrupt):
            status = "KILLED"

        def terminate() -> None:
            self.hold()
            self._client.set_terminated(self.run_id, status)

        try:
            if error is None:
                patiently(self.store, terminate)
            else:
                # It is not this driver's to end if another has it.
                with explained(self.store), suppress(RecordError):
                    terminate()
        finally:
            self._lease.release()

    def _settle(self) -> None:
        """Makes sure that the study is this process's and can be kept; else its run is no study.

        Raises:
            InputError: It is not.
        """
        try:
            if patiently(self.store, lambda: is_younger(self.store, self._study, self.run_id)):
                raise _exists(self._study)
            self._spool.open(self.run_id)
        except InputError:
            self._withdraw()
            raise

    def _withdraw(self) -> None:
        """Lets go of a run that is not to be a study."""
        self._lease.release()
        with suppress(Exception):  # it says nothing yet
            if active_run_from_environment() is None:
                self._client.delete_run(self.run_id)
            else:
                self._client.delete_tag(self.run_id, PACKING_TAG)

    def _is_described(self) -> bool:
        found = self._client.list_artifacts(self.run_id)
        return SETTINGS in [entry.path for entry in found]

    def _describe(self, settings: Mapping[str, Any], besides: Mapping[str, str]) -> None:
        """Records, for people to read, how the study was begun."""
        self._log_params(as_params(settings), besides)
        log_dataset(self.store, self.run_id, self._parts)
        self.log_notes()
        # Last: a study that has it has all of them.
        self._client.log_dict(self.run_id, dict(settings), SETTINGS)

    def _log_params(self, params: Mapping[str, str], besides: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        new = [Param(name, text) for name, text in params.items() if name not in besides]
        self._client.log_batch(self.run_id, params=new)

    def log_notes(self) -> None:
        """Records what was noticed about the table, without its cells, as notes.json."""
        text = json.dumps(to_json(self._parts.notes), indent=1)
        self._client.log_text(self.run_id, text, NOTES)

    def log_trials(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Records the table of trials, as trials.csv."""
        self._client.log_text(self.run_id, _as_csv(rows), "trials.csv")

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
        model = BestModel(self._study, self._parts, best, predictor, metrics, confusion)
        return record_best(self.store, self.run_id, model, model_name)


def _exists(study: str) -> InputError:
    return InputError(
        f"study: must be a new name, got `{study}`, of which there is one; say --resume to go on "
        "with it, or choose another name"
    )


def _as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    flat = [
        {**row, **{f"metrics.{name}": value for name, value in row["metrics"].items()}}
        | row["params"]
        for row in rows
    ]
    text = io.StringIO()
    nested = ("params", "metrics")
    names = dict.fromkeys(name for row in flat for name in row if name not in nested)
    writer = csv.DictWriter(text, names, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()
