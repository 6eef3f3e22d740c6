"""A study from table to registered model."""

from __future__ import annotations

import gc
import importlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager, redirect_stdout, suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from mlops.cluster import machines
from mlops.cluster.connection import Connection
from mlops.configuration.hyperparameters import Hyperparameters
from mlops.configuration.space import SearchSpace
from mlops.data.notes import to_json, told
from mlops.errors import InputError, RecordError, StudyError, TableError, TrackingError
from mlops.files import is_uri
from mlops.nn.sizes import TableSize
from mlops.settings.sections import DataSettings, TrackingSettings
from mlops.tracking.store.store import explained, open_store, patiently, prepare_environment
from mlops.tracking.store.uris import without_password
from mlops.tracking.study.spool import Spool
from mlops.tracking.study.storage import checkpoint_folder, study_folder
from mlops.tuning import resuming
from mlops.tuning.search import packing

if TYPE_CHECKING:
    from mlops.data.columns.features import FeatureEncoder
    from mlops.data.dataset import Dataset
    from mlops.data.table import Parts
    from mlops.tracking.pyfunc import Predictor
    from mlops.tracking.store.store import Store
    from mlops.tracking.study.record import StudyRecord
    from mlops.tracking.study.study_run import StudyRun
    from mlops.tuning.search.packing import Packing
    from mlops.tuning.training.trial import SharedRows
    from mlops.tuning.watching.ledger import Ledger
    from mlops.tuning.watching.stopping import Stop


@dataclass(frozen=True)
class Plan:
    """What a study is to do.

    Attributes:
        name: The study's name.
        default: Trial 0, and the values of what the space leaves out.
        space: The search space; None trains the default alone.
        max_evals: Trials.
        pack_size: Trials a pack, or "auto".
        metric: What trials are compared by.
        seed: Seed of search and training.
        algorithm: The searcher.
        initial_points: Random trials before the searcher models anything.
        eta: Prune to 1/eta at rungs; None for no pruning.
        min_epochs: The first rung.
        workers: Packs trained at the same time, or "auto".
        cpus_per_worker: Cores a worker.
        gpus_per_worker: GPUs a worker, or "auto".
        cpu_workers: More workers, without a GPU, beside those with one, or "auto".
        precision: Of matrix products: float32, tf32 or bf16.
        max_failures: How often a pack whose worker died is started again.
        time_budget: Seconds after which the study is ended.
        target: A score that ends the study.
        trial_timeout: Seconds that a worker may go without an epoch; None for ever.
        no_worker_timeout: Seconds without any worker after which the study stops.
        checkpoint_every: Seconds from one checkpoint of a pack to the next; None for none.
        storage: Folder for what is not in MLflow yet, and for checkpoints; a URI is for these.
        resume: Go on with the study of this name.
        address: The Ray cluster; by default what `RAY_ADDRESS` says, else this machine alone.
        again: The command that resumes it.
    """

    name: str
    default: Hyperparameters
    space: SearchSpace | None = None
    max_evals: int = 1
    pack_size: int | Literal["auto"] = 1
    metric: str = "val_accuracy"
    seed: int = 0
    algorithm: str = "hyperopt"
    initial_points: int = 10
    eta: int | None = None
    min_epochs: int = 5
    workers: int | Literal["auto"] = "auto"
    cpus_per_worker: float = 1.0
    gpus_per_worker: float | Literal["auto"] = "auto"
    cpu_workers: int | Literal["auto"] = 0
    precision: str = "float32"
    max_failures: int = 2
    time_budget: float | None = None
    target: float | None = None
    trial_timeout: float | None = None
    no_worker_timeout: float = 600.0
    checkpoint_every: float | None = None
    storage: str = "studies"
    resume: bool = False
    address: str | None = None
    again: str = ""


def run(
    plan: Plan, data: DataSettings, tracking: TrackingSettings, resolved: Mapping[str, Any]
) -> dict[str, Any]:
    """Runs a study: load, search, score the best on the test part, record, register.

    Nothing is recorded before the table has been read and checked. Meanwhile Ray starts, except
    that a file is read first, so that what is wrong with it is told at once.

    A study that is resumed trains what is left of it, and ends as it would have ended at once.

    Args:
        plan: What to do.
        data: Where the table is.
        tracking: Where to record.
        resolved: The job's settings, to be recorded.

    Returns:
        The study's result, JSON values.

    Raises:
        InputError: If the table or the resources cannot be used; nothing is recorded then.
        TrackingError: If the MLflow store cannot be used.
        RecordError: If it fails later.
        StudyError: If no trial has a score.
        KeyboardInterrupt: If the user stopped it; what was done is recorded.
    """
    started = time.monotonic()
    prepare_environment(retries=0)
    with ExitStack() as stack:
        # Libraries may print; stdout is for the job's result alone.
        stack.enter_context(redirect_stdout(sys.stderr))
        connection = stack.enter_context(closing(Connection(plan.address)))
        background = ThreadPoolExecutor(max_workers=1)
        stack.callback(background.shutdown, wait=False, cancel_futures=True)
        # Searching for garbage after every few hundred new objects is a fifth of what imports cost.
        gc.disable()
        stack.callback(gc.enable)
        spool = Spool(study_folder(plan.storage, plan.name))
        spool.check()
        stack.callback(spool.close, sent=False)
        record = _record(plan, tracking, resolved) if plan.resume else None
        ready = _make_ready(plan, data, tracking, connection, background, record)
        beginning, before = _begin(plan, ready, resolved, spool, background)
        proposed = threading.Event()
        stack.callback(proposed.set)
        warming = background.submit(_warm_up_model, proposed)
        with _ended(beginning, plan):
            ledger, stop = _search(plan, ready, beginning, before, spool, started, proposed)
            study_run = beginning.result()
            _log_trials(ledger, study_run)
            if stop.by_user:
                raise KeyboardInterrupt
            if stop.error is not None:
                raise StudyError(f"{stop.error}; resume it when the cluster has workers again")
            # torch exports one network at a time.
            wait([warming])
            recording = background.submit(_log_best, ledger, ready, study_run, tracking.model_name)
            try:
                connection.close()
                logged = recording.result()
            finally:
                # Who interrupts now still gets a model that is recorded as a whole.
                wait([recording])
        spool.close(sent=True, goes_on=stop.reason is not None)
    _report(logged, study_run.store.display_uri)
    if stop.reason is not None:
        print(f"{stop.reason}; to go on: {plan.again}", file=sys.stderr)
    return {
        "study": plan.name,
        "run_id": study_run.run_id,
        "tracking_uri": study_run.store.display_uri,
        "trials": len(ledger.rows),
        "outcomes": ledger.outcomes(),
        "stopped": stop.reason,
        **logged,
        "notes": to_json(ready.parts.notes),
        "tracking_seconds_per_record": ledger.tracking_seconds / max(1, ledger.epochs),
        "seconds": round(time.monotonic() - started, 2),
    }


def name_by_time(job: str) -> str:
    """Returns a study's name for those who give none, such as `tune-20261123-142501-417`."""
    now = time.time()
    return (
        f"{job}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}-{int(now * 1000) % 1000:03}"
    )


def recorded_settings(study: str | None, tracking: TrackingSettings) -> dict[str, Any]:
    """Reads what a study that is to be resumed was begun with, but for that run's own concerns.

    Args:
        study: Its name; None for the last one.
        tracking: Where it is on record.

    Raises:
        InputError: There is no such study.
        TrackingError: The store cannot be asked.
    """
    record = resuming.recorded_study(_open_store(tracking), study)
    settings = {**record.settings, "study": record.name, "tracking": tracking.model_dump()}
    this_time = {"time_budget": None, "target": None, "address": None}
    return {**settings, "max_evals": max(record.ends), **this_time}


def _load(data: DataSettings) -> Parts:
    """Reads the table and tells what was noticed about it.

    Raises:
        TableError: It cannot be used, or nothing was to be noticed.
    """
    from mlops.data.synthetic import SyntheticSpec
    from mlops.data.table import load_parts
    from mlops.tracking.study.dataset import notes_on_record

    given = data.model_dump(exclude={"synthetic", "columns", "drop", "keep", "strict"})
    if data.path is None and data.sklearn is None and data.openml is None:
        given["synthetic"] = SyntheticSpec(**data.synthetic.model_dump())
    parts = load_parts(**given, wishes=data.wishes)
    if data.strict and (found := [note for note in parts.notes if not note.wished]):
        raise TableError([f"data.strict: {note}" for note in found])
    notes = (*parts.notes, *notes_on_record(parts))
    if notes:
        print(told(parts.name, notes), file=sys.stderr, flush=True)
    return replace(parts, notes=notes)


def _title(plan: Plan, parts: Parts) -> str:
    rows = len(parts.train) + len(parts.validation) + len(parts.test)
    counts = Counter(reading.kind for reading in parts.readings)
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    return (
        f"{plan.name}: {parts.name}, {rows:,} rows, {len(parts.readings)} columns ({kinds}), "
        f"{len(parts.classes)} classes"
    )


@dataclass(frozen=True)
class _Ready:
    """What a search needs and takes seconds to get; the store may take some more."""

    parts: Parts
    encoder: FeatureEncoder
    rows: SharedRows
    workers: machines.Workers
    packing: Packing
    opening: Future[Store]
    record: StudyRecord | None


def _make_ready(
    plan: Plan,
    data: DataSettings,
    tracking: TrackingSettings,
    connection: Connection,
    background: Executor,
    record: StudyRecord | None,
) -> _Ready:
    """Starts Ray while the table is read and later stages' libraries are imported."""
    if data.path is None:
        # Two imports at once take turns, and Ray's processes could be starting meanwhile.
        importlib.import_module("ray")
    loading = background.submit(_load, data)
    if data.path is not None:
        loading.result()
    preparing = background.submit(lambda: _prepare(loading.result()))
    importing = background.submit(_import_search, plan)
    opening = background.submit(_open_store, tracking)
    if record is not None:
        resuming.check_table(record, loading.result().digest, loading.result().name)
    connection.open()
    encoder, dataset = preparing.result()
    n_rows, n_features = dataset.x_train.shape
    workers = machines.workers(
        machines.resources(),
        plan.workers,
        plan.cpus_per_worker,
        plan.gpus_per_worker,
        at_most=packing.most_workers(plan.max_evals, plan.default, n_rows, n_features),
        beside=plan.cpu_workers,
        may_grow=not connection.is_local,
    )
    if plan.precision == "tf32" and not workers.gpus:
        raise InputError(
            "resources.precision: must be float32 or bf16 where no GPU trains, got tf32; leave it "
            "out"
        )
    if plan.checkpoint_every is not None and (is_uri(plan.storage) or not connection.is_local):
        machines.check_storage(checkpoint_folder(plan.storage, plan.name), workers.cpus)
    importing.result()
    from mlops.tuning.execution import share

    if record is None:
        size = TableSize(n_rows, len(dataset.x_val), n_features, dataset.n_classes)
        divided = _packing_of(plan, workers, size)
    else:
        divided = packing.Packing(**record.packing)
    rows = share(dataset)
    return _Ready(loading.result(), encoder, rows, workers, divided, opening, record)


def _import_search(plan: Plan) -> None:
    importlib.import_module("mlops.tuning.execution")
    if plan.space is not None:
        from mlops.tuning.search.searchers import import_searcher

        import_searcher(plan.algorithm)


def _prepare(parts: Parts) -> tuple[FeatureEncoder, Dataset]:
    from mlops.data.dataset import encode, fit_encoder
    from mlops.data.room import check_room, free_memory

    encoder = fit_encoder(parts)
    check_room(encoder, len(parts.train) + len(parts.validation), free_memory())
    return encoder, encode(parts, encoder)


def _open_store(tracking: TrackingSettings) -> Store:
    prepare_environment(retries=0)
    return open_store(tracking.uri, tracking.experiment)


def _warm_up_model(proposed: threading.Event) -> None:
    """Imports what the model needs, when the searcher, in the same process, has no more to do."""
    _collect_garbage()
    proposed.wait()
    gc.disable()
    from mlops.tracking.models import model
    from mlops.tracking.study import pictures

    model.warm_up()
    pictures.warm_up()
    _collect_garbage()


def _collect_garbage() -> None:
    """Searches for garbage again, but not among what was imported, which stays."""
    gc.freeze()
    gc.enable()


def _record(plan: Plan, tracking: TrackingSettings, resolved: Mapping[str, Any]) -> StudyRecord:
    """Reads the study that is to go on."""
    record = resuming.recorded_study(_open_store(tracking), plan.name)
    resuming.check_same(record, resolved, plan.max_evals)
    return record


def _begin(
    plan: Plan, ready: _Ready, resolved: Mapping[str, Any], spool: Spool, background: Executor
) -> tuple[Future[StudyRun], resuming.Before]:
    """Makes the study's run in the background; one that goes on must be read first."""
    from mlops.tracking.study.study_run import StudyRun

    def make() -> StudyRun:
        store, divided = ready.opening.result(), asdict(ready.packing)
        settings = {**resolved, "tracking": _open_to_all(resolved["tracking"])}
        return StudyRun.create(
            store, plan.name, settings, ready.parts, divided, plan.max_evals, spool
        )

    if ready.record is None:
        return background.submit(make), resuming.Before()
    store, made = ready.opening.result(), Future[StudyRun]()
    with explained(store):
        run = StudyRun.resume(store, ready.record, ready.parts, plan.max_evals, spool)
    made.set_result(run)
    try:
        before = resuming.read_before(ready.record, run, spool, plan.metric, ready.packing.merit)
        return made, before
    except BaseException as error:
        with suppress(TrackingError):
            run.end(error)
        raise


def _open_to_all(tracking: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of the record as they may be read there."""
    uri = tracking["uri"]
    return {**tracking, "uri": None if uri is None else without_password(uri)}


@contextmanager
def _ended(beginning: Future[StudyRun], plan: Plan) -> Iterator[None]:
    """Ends the study's run, if it could be made, as what happens here ends.

    Unless it ends well it says how to go on.

    Raises:
        RecordError: The store has failed since the run was made.
    """
    try:
        yield
        beginning.result().end()
    except BaseException as error:
        if beginning.exception() is not None:
            raise
        with suppress(TrackingError):
            beginning.result().end(error)
        print(f"to go on: {plan.again}", file=sys.stderr)
        if isinstance(error, TrackingError):
            raise RecordError(str(error)) from error
        raise


def _search(
    plan: Plan,
    ready: _Ready,
    study_run: Future[StudyRun],
    before: resuming.Before,
    spool: Spool,
    started: float,
    proposed: threading.Event,
) -> tuple[Ledger, Stop]:
    from mlops.tuning.execution import search

    title = _title(plan, ready.parts)
    deadline = None if plan.time_budget is None else started + plan.time_budget
    return search(
        plan,
        ready.packing,
        ready.workers,
        ready.rows,
        study_run,
        before,
        spool,
        title,
        deadline,
        proposed.set,
    )


def _packing_of(plan: Plan, workers: machines.Workers, table: TableSize) -> Packing:
    widest = plan.default
    if plan.space is not None:
        widest = packing.widest_configuration(plan.space, plan.default, table.n_features)
    memory = None
    if workers.gpus and plan.pack_size == "auto":
        memory = machines.gpu_memory()
    return packing.choose(
        plan.pack_size,
        max_evals=plan.max_evals,
        workers=workers.count,
        widest=widest,
        table=table,
        device="cuda" if workers.gpus else "cpu",
        memory=memory and int(memory * workers.gpus),
        beside=workers.beside,
    )


def _log_trials(ledger: Ledger, study_run: StudyRun) -> None:
    rows = [row.to_dict() for row in ledger.ordered()]
    patiently(study_run.store, study_run.hold)
    patiently(study_run.store, lambda: study_run.log_trials(rows))


def _log_best(
    ledger: Ledger, ready: _Ready, study_run: StudyRun, model_name: str
) -> dict[str, Any]:
    """Scores the best trial's model on every part, records and registers it."""
    from mlops.tracking.models import promotion
    from mlops.tuning import scoring

    best = ledger.best
    if best is None:
        raise StudyError(_no_score(ledger))
    weights = ledger.weights.get(best.trial)
    if weights is None:
        raise StudyError(
            f"the best trial, {best.trial}, must have its weights, got none: it was trained again "
            "on another kind of machine and is not quite the same; --resume trains it once more"
        )
    parts = ready.parts
    predictor = scoring.build(best.params, weights, ready.encoder, parts.classes, parts.target_name)
    metrics, confusion = scoring.score(predictor, parts)
    store = study_run.store
    row = best.to_dict()
    logged = patiently(
        store, lambda: study_run.log_best(row, predictor, metrics, confusion, model_name)
    )
    score = ledger.metric.removeprefix("val_")

    def score_on_test(model: Predictor) -> float:
        return scoring.score_part(model, scoring.with_columns_of(model, parts.test))[0][score]

    promoted = patiently(
        store,
        lambda: promotion.challenge(
            store,
            model_name,
            logged["model"]["version"],
            f"test_{score}",
            score_on_test,
        ),
    )
    return {"best": best.to_dict(), **logged, "promotion": asdict(promoted)}


def _report(logged: Mapping[str, Any], store: str) -> None:
    """Tells people what the job's result tells programs."""
    model, promoted = logged["model"], logged["promotion"]
    crowned = promoted["champion"] == model["version"]
    print(
        f"test accuracy {logged['test_accuracy']:.4f} by trial {logged['best']['trial']}; "
        f"{model['name']} version {model['version']} in {store} is now "
        f"{'champion' if crowned else 'candidate'}: {promoted['reason']}",
        file=sys.stderr,
    )


def _no_score(ledger: Ledger) -> str:
    reasons = [row.reason for row in ledger.ordered() if row.reason]
    return (
        f"at least one trial must end with a score, got {len(ledger.rows)} without; "
        f"the first one failed because {reasons[0] if reasons else 'it was stopped'}"
    )
