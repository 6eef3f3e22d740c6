"""The search itself: packs as Ray Tune trials."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

import ray
import ray.tune.tune as tune_module
from ray import tune

from mlops.cluster.machines import Workers
from mlops.data.dataset import Dataset
from mlops.nn.tasks.metrics import METRICS
from mlops.nn.tasks.task import Task
from mlops.tracking.study.logger import StudyLogger
from mlops.tracking.study.spool import Spool
from mlops.tracking.study.storage import checkpoint_folder
from mlops.tuning.resuming import Before
from mlops.tuning.search.packing import Packing
from mlops.tuning.search.packs import PackSearch
from mlops.tuning.search.proposals import Proposals
from mlops.tuning.training.controller import PackController
from mlops.tuning.training.trial import PackOptions, PackTrial, SharedRows, report_every
from mlops.tuning.watching.ledger import Ledger
from mlops.tuning.watching.progress import Progress
from mlops.tuning.watching.stopping import Stop
from mlops.tuning.watching.watch import Watch

if TYPE_CHECKING:
    from mlops.tracking.study.study_run import StudyRun
    from mlops.tuning.study import Plan


def share(dataset: Dataset, task: Task) -> SharedRows:
    """Puts the rows into the object store."""
    arrays = (dataset.x_train, dataset.y_train, dataset.x_val, dataset.y_val)
    return SharedRows(ray.put(arrays), task)


def search(
    plan: Plan,
    packing: Packing,
    workers: Workers,
    rows: SharedRows,
    study_run: Future[StudyRun],
    before: Before,
    spool: Spool,
    title: str,
    deadline: float | None,
    when_proposed: Callable[[], None],
) -> tuple[Ledger, Stop]:
    """Runs all trials of a study, or those that are left of it, and records them.

    Args:
        plan: What to do.
        packing: How trials are divided into packs.
        workers: What trains them.
        rows: The training and validation rows.
        study_run: Where to record; it may be still in the making.
        before: What was done of a study that is resumed.
        spool: Where the record is kept until it is sent.
        title: What the progress display is headed.
        deadline: When to stop, by `time.monotonic`; None for never.
        when_proposed: Called once when nothing is left to be proposed: this process has time then.

    Returns:
        The table of trials with the best one's weights, and what ended the search.

    Raises:
        InputError: A study that is resumed is not proposed as it was.
        TrackingError: If the study's run could not be made, or the record not be written.
    """
    proposals = Proposals(
        plan.space,
        plan.default,
        algorithm=plan.algorithm,
        initial_points=plan.initial_points,
        metric=METRICS[plan.metric],
        seed=plan.seed,
    )
    searcher = PackSearch(
        proposals,
        max_evals=plan.max_evals,
        packing=packing,
        workers=workers.count,
        recorded=before.to_keep,
        ends=before.ends,
        when_proposed=when_proposed,
    )
    options = PackOptions(
        seed=plan.seed,
        metric=plan.metric,
        eta=plan.eta,
        min_epochs=plan.min_epochs,
        threads=max(1, int(workers.cpus)),
        gpus=workers.gpus,
        precision=plan.precision,
        checkpoint_every=plan.checkpoint_every,
        checkpoints=checkpoint_folder(plan.storage, plan.name),
        timeout=plan.trial_timeout,
        report_every=report_every(workers.count),
    )
    needs = tune.PlacementGroupFactory([{"CPU": workers.cpus, "GPU": workers.gpus}])
    trainable = tune.with_parameters(PackTrial, rows=rows, options=options)
    logger = StudyLogger(study_run, plan.name, plan.metric, spool, before.trials, before.unsent)
    ledger = Ledger(plan.metric, plan.max_evals, before.trials)
    if before.weights and ledger.best is not None:
        ledger.weights = {ledger.best.trial: before.weights}
    stop = Stop(ledger, deadline, plan.target)
    watch = Watch(stop, plan.trial_timeout, plan.no_worker_timeout, options.report_every)
    _set_up_tune(workers.count)
    tune_module.TuneController = PackController
    with (
        tempfile.TemporaryDirectory(prefix="mlops-") as folder,
        Progress(ledger, title) as progress,
        stop.on_interrupt(),
    ):
        try:
            if not searcher.finished:
                tune.run(
                    tune.with_resources(trainable, needs),
                    name="study",  # a path in the folder, which the study's may lead out of
                    search_alg=searcher,
                    num_samples=-1,  # until the searcher has no more
                    stop=stop,
                    reuse_actors=True,
                    max_failures=plan.max_failures,
                    raise_on_failed_trial=False,
                    storage_path=folder,
                    trial_dirname_creator=lambda trial: f"pack-{trial.trial_id}",
                    callbacks=[logger, ledger, progress, watch],
                    verbose=0,
                )
        finally:
            when_proposed()
            reason = stop.reason or "the study was stopped"
            ledger.close(reason)
            logger.close(reason)
            ledger.tracking_seconds = logger.seconds
    return ledger, stop


def _set_up_tune(workers: int) -> None:
    """Lets all workers start at once, and leaves the record to MLflow.

    No result files, no notes on their absence.
    """
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(workers)
    for name in ("ray.tune", "ray.tune.tune", "ray.tune.analysis", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
