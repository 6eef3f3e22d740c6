"""What a search needs and takes seconds to get: the table, Ray, and the study on record."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from mlops.cluster import machines
from mlops.cluster.connection import Connection
from mlops.data.notes import told
from mlops.errors import InputError, TableError, TrackingError
from mlops.files import is_uri
from mlops.nn.sizes import TableSize
from mlops.settings.sections import DataSettings
from mlops.tracking.store.probe import without_password
from mlops.tracking.store.store import explained
from mlops.tracking.study.spool import Spool
from mlops.tracking.study.storage import checkpoint_folder
from mlops.tuning import resuming
from mlops.tuning.plan import Plan
from mlops.tuning.search import packing

if TYPE_CHECKING:
    from mlops.data.columns.features import FeatureEncoder
    from mlops.data.dataset import Dataset
    from mlops.data.table import Parts
    from mlops.nn.tasks.task import Task
    from mlops.tracking.store.store import Store
    from mlops.tracking.study.record import StudyRecord
    from mlops.tracking.study.study_run import StudyRun
    from mlops.tuning.search.packing import Packing
    from mlops.tuning.training.options import SharedRows


@dataclass(frozen=True)
class Means:
    """What all stages of a study work with; who makes it opens and closes it.

    Attributes:
        connection: To Ray, opened by `prepare`.
        background: Of one thread, for what may go on meanwhile.
        spool: Where the record is kept until it is sent.
        deadline: When to end the study, by `time.monotonic`; None for never.
    """

    connection: Connection
    background: Executor
    spool: Spool
    deadline: float | None


@dataclass(frozen=True)
class Ready:
    """What a search needs.

    Attributes:
        plan: What it is to do.
        means: Those of all stages.
        parts: The table.
        task: What is to be told of its rows.
        encoder: Its preprocessing.
        rows: What packs train on.
        workers: What trains them.
        packing: How trials are divided into packs.
        run: Where to record; it may be still in the making.
        before: What was done of a study that is resumed.
    """

    plan: Plan
    means: Means
    parts: Parts
    task: Task
    encoder: FeatureEncoder
    rows: SharedRows
    workers: machines.Workers
    packing: Packing
    run: Future[StudyRun]
    before: resuming.Before


def prepare(plan: Plan, means: Means) -> Ready:
    """Starts Ray while the table is read and later stages' libraries are imported.

    Raises:
        InputError: The table or the resources cannot be used, or the study not be resumed.
        TrackingError: The store cannot be asked for the study that is to be resumed.
    """
    keeping, data, background = plan.keeping, plan.data, means.background
    record = _recorded(plan) if keeping.resume else None
    if data.path is None:
        # Two imports at once take turns, and Ray's processes could be starting meanwhile.
        importlib.import_module("ray")
    loading = background.submit(load_table, data)
    if data.path is not None:
        loading.result()
    encoding = background.submit(lambda: _encode(loading.result()))
    importing = background.submit(_import_search, plan)
    opening = background.submit(resuming.open_record, keeping.tracking)
    if record is not None:
        resuming.check_table(record, loading.result().digest, loading.result().name)
    means.connection.open()
    encoder, dataset = encoding.result()
    workers = _workers(plan, dataset, means.connection)
    importing.result()
    from mlops.nn.tasks.classification import Classification
    from mlops.tuning.training.options import share

    if record is None:
        divided = _divide(plan, workers, dataset)
    else:
        divided = packing.Packing(**record.packing)
    parts = loading.result()
    task = Classification(parts.classes)
    rows = share(dataset, task)
    # Packs train on the copy that is shared.
    del dataset, encoding
    run, before = _begin(plan, means, parts, divided, opening, record)
    return Ready(plan, means, parts, task, encoder, rows, workers, divided, run, before)


def load_table(data: DataSettings) -> Parts:
    """Reads the table and tells what was noticed about it.

    Raises:
        TableError: It cannot be used, or nothing was to be noticed.
    """
    from mlops.data.table import load_parts
    from mlops.tracking.study.dataset import notes_on_record

    parts = load_parts(data)
    if data.strict and (found := [note for note in parts.notes if not note.wished]):
        raise TableError([f"data.strict: {note}" for note in found])
    notes = (*parts.notes, *notes_on_record(parts))
    if notes:
        print(told(parts.name, notes), file=sys.stderr, flush=True)
    return replace(parts, notes=notes)


def title(study: str, parts: Parts) -> str:
    """Returns what the progress of a study is headed: its name and what it learns from."""
    rows = len(parts.train) + len(parts.validation) + len(parts.test)
    counts = Counter(reading.kind for reading in parts.readings)
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    return (
        f"{study}: {parts.name}, {rows:,} rows, {len(parts.readings)} columns ({kinds}), "
        f"{len(parts.classes)} classes"
    )


def _recorded(plan: Plan) -> StudyRecord:
    """Reads the study that is to go on."""
    store = resuming.open_record(plan.keeping.tracking)
    record = resuming.recorded_study(store, plan.name)
    resuming.check_same(record, plan.keeping.settings, plan.search.max_evals)
    return record


def _encode(parts: Parts) -> tuple[FeatureEncoder, Dataset]:
    from mlops.data.dataset import encode, fit_encoder
    from mlops.data.room import check_room, free_memory

    encoder = fit_encoder(parts)
    check_room(encoder, len(parts.train) + len(parts.validation), free_memory())
    return encoder, encode(parts, encoder)


def _import_search(plan: Plan) -> None:
    importlib.import_module("mlops.tuning.execution")
    if plan.search.space is not None:
        from mlops.tuning.search.searchers import import_searcher

        import_searcher(plan.search.how.algorithm)


def _workers(plan: Plan, dataset: Dataset, connection: Connection) -> machines.Workers:
    """Divides the machines among workers, and checks what these need beside them."""
    resources, keeping, search = plan.crew.resources, plan.keeping, plan.search
    n_rows, n_features = dataset.x_train.shape
    workers = machines.workers(
        machines.resources(),
        resources.workers,
        resources.cpus_per_worker,
        resources.gpus_per_worker,
        at_most=packing.most_workers(search.max_evals, search.default, n_rows, n_features),
        may_grow=not connection.is_local,
    )
    if resources.precision == "tf32" and not workers.gpus:
        raise InputError(
            "resources.precision: must be float32 or bf16 where no GPU trains, got tf32; leave it "
            "out"
        )
    if keeping.checkpoint_every is not None and (
        is_uri(keeping.storage) or not connection.is_local
    ):
        machines.check_storage(checkpoint_folder(keeping.storage, plan.name), workers.cpus)
    return workers


def _divide(plan: Plan, workers: machines.Workers, dataset: Dataset) -> Packing:
    search, pack_size = plan.search, plan.training.pack_size
    n_rows, n_features = dataset.x_train.shape
    widest = search.default
    if search.space is not None:
        widest = packing.widest_configuration(search.space, widest, n_features)
    memory = machines.gpu_memory() if workers.gpus and pack_size == "auto" else None
    return packing.choose(
        pack_size,
        max_evals=search.max_evals,
        workers=workers.count,
        widest=widest,
        table=TableSize(n_rows, len(dataset.x_val), n_features, dataset.n_classes),
        device="cuda" if workers.gpus else "cpu",
        memory=memory and int(memory * workers.gpus),
    )


def _begin(
    plan: Plan,
    means: Means,
    parts: Parts,
    divided: Packing,
    opening: Future[Store],
    record: StudyRecord | None,
) -> tuple[Future[StudyRun], resuming.Before]:
    """Makes the study's run in the background; one that goes on must be read first."""
    from mlops.tracking.study.study_run import StudyRun

    name, max_evals, spool = plan.name, plan.search.max_evals, means.spool

    def make() -> StudyRun:
        settings = _open_to_all(plan.keeping.settings)
        store = opening.result()
        return StudyRun.create(store, name, settings, parts, asdict(divided), max_evals, spool)

    if record is None:
        return means.background.submit(make), resuming.Before()
    store, made = opening.result(), Future[StudyRun]()
    with explained(store):
        run = StudyRun.resume(store, record, parts, max_evals, spool)
    made.set_result(run)
    try:
        return made, resuming.read_before(record, run, spool, plan.training.metric)
    except BaseException as error:
        with suppress(TrackingError):
            run.end(error)
        raise


def _open_to_all(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of the record as they may be read there."""
    tracking = settings["tracking"]
    uri = tracking["uri"]
    shown = {**tracking, "uri": None if uri is None else without_password(uri)}
    return {**settings, "tracking": shown}
