"""The search itself: packs as Ray Tune trials."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune import Callback

from mlops.cluster.machines import Workers
from mlops.nn.tasks.metrics import METRICS
from mlops.tracking.study.logger import StudyLogger
from mlops.tracking.study.storage import checkpoint_folder
from mlops.tuning.plan import Plan
from mlops.tuning.preparation import Ready, title
from mlops.tuning.search.packs import PackSearch
from mlops.tuning.search.proposals import Proposals
from mlops.tuning.training.loop import set_up
from mlops.tuning.training.options import PackOptions, report_every
from mlops.tuning.training.trial import PackTrial
from mlops.tuning.watching.ledger import Ledger
from mlops.tuning.watching.progress import Progress
from mlops.tuning.watching.stopping import Stop
from mlops.tuning.watching.watch import Watch


@dataclass(frozen=True)
class Found:
    """What a search has come to.

    Attributes:
        ready: What it was done with.
        ledger: The table of trials, with the best one's weights.
        stop: What ended the search.
    """

    ready: Ready
    ledger: Ledger
    stop: Stop


def search(ready: Ready, when_proposed: Callable[[], None]) -> Found:
    """Runs all trials of a study, or those that are left of it, and records them.

    Args:
        ready: What to do, and what with.
        when_proposed: Called once when nothing is left to be proposed: this process has time then.

    Raises:
        InputError: A study that is resumed is not proposed as it was.
        TrackingError: If the study's run could not be made, or the record not be written.
    """
    plan, means, before = ready.plan, ready.means, ready.before
    metric, searcher = plan.training.metric, _searcher(ready, when_proposed)
    options = _options(plan, ready.workers)
    logger = StudyLogger(ready.run, plan.name, metric, means.spool, before.trials, before.unsent)
    ledger = Ledger(metric, plan.search.max_evals, before.trials)
    if before.weights and ledger.best is not None:
        ledger.weights = {ledger.best.trial: before.weights}
    stop = Stop(ledger, means.deadline, plan.end.target)
    watch = Watch(stop, options.timeout, plan.end.no_worker_timeout, options.report_every)
    with Progress(ledger, title(plan.name, ready.parts)) as progress, stop.on_interrupt():
        try:
            if not searcher.finished:
                _tune(
                    tune.with_parameters(PackTrial, rows=ready.rows, options=options),
                    ready.workers,
                    searcher,
                    stop,
                    plan.crew.max_failures,
                    [logger, ledger, progress, watch],
                )
        finally:
            when_proposed()
            reason = stop.reason or "the study was stopped"
            ledger.close(reason)
            logger.close(reason)
            ledger.tracking_seconds = logger.seconds
    return Found(ready, ledger, stop)


def _searcher(ready: Ready, when_proposed: Callable[[], None]) -> PackSearch:
    search, training = ready.plan.search, ready.plan.training
    proposals = Proposals(
        search.space,
        search.default,
        algorithm=search.how.algorithm,
        initial_points=search.how.initial_points,
        metric=METRICS[training.metric],
        seed=training.seed,
    )
    return PackSearch(
        proposals,
        max_evals=search.max_evals,
        packing=ready.packing,
        workers=ready.workers.count,
        recorded=ready.before.to_keep,
        ends=ready.before.ends,
        when_proposed=when_proposed,
    )


def _options(plan: Plan, workers: Workers) -> PackOptions:
    training, keeping = plan.training, plan.keeping
    return PackOptions(
        seed=training.seed,
        metric=training.metric,
        eta=training.pruning.eta,
        min_epochs=training.pruning.min_epochs,
        threads=max(1, int(workers.cpus)),
        gpus=workers.gpus,
        precision=plan.crew.resources.precision,
        checkpoint_every=keeping.checkpoint_every,
        checkpoints=checkpoint_folder(keeping.storage, plan.name),
        timeout=plan.crew.trial_timeout,
        report_every=report_every(workers.count),
    )


def _tune(
    trainable: Any,
    workers: Workers,
    searcher: PackSearch,
    stop: Stop,
    max_failures: int,
    callbacks: Sequence[Callback],
) -> None:
    """Lets Tune train what is proposed until all is or the study is stopped."""
    set_up(workers.count)
    needs = tune.PlacementGroupFactory([{"CPU": workers.cpus, "GPU": workers.gpus}])
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        tune.run(
            tune.with_resources(trainable, needs),
            name="study",  # a path in the folder, which the study's may lead out of
            search_alg=searcher,
            num_samples=-1,  # until the searcher has no more
            stop=stop,
            reuse_actors=True,
            max_failures=max_failures,
            raise_on_failed_trial=False,
            storage_path=folder,
            trial_dirname_creator=lambda trial: f"pack-{trial.trial_id}",
            callbacks=callbacks,
            verbose=0,
        )
