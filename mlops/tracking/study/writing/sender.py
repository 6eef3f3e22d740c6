"""How child runs get to a store: as rows, many at a time, or each by MLflow's client."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from mlops.tracking.store.inside.rows import is_database, is_plain, takes_rows, write_runs
from mlops.tracking.store.runs import RunUpdate, create_run, end_run, fill_run, read_run
from mlops.tracking.store.store import SENDERS, Store
from mlops.tracking.study.writing.child_run import ChildRun

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

# Metrics, params and tags in a transaction: it keeps other writers of an SQLite store waiting.
MOST_VALUES = 10_000


class Sender:
    """Sends child runs: as rows where the store takes them, else each by MLflow's client.

    By itself a run costs 30 times as much as among others in a transaction. What is refused there
    goes by the client the next time: so one bad run keeps no other back, and what the store may
    have of it, when the answer alone was lost, is looked at first.

    Args:
        run_ids: The runs of trials that are on record, by trial; those of trials sent are added.
        resumed: Whether a server may have made runs for a driver that died before it was answered.

    Attributes:
        seconds: Processor time of threads that sent.
    """

    def __init__(self, run_ids: dict[int, str], resumed: bool) -> None:
        self._run_ids = run_ids
        self._resumed = resumed
        self.seconds = 0.0

    def send(self, store: Store, children: Sequence[ChildRun]) -> dict[int, Exception]:
        """Sends what the store does not have, until it refuses something.

        Returns:
            Why it did, by trial.
        """
        together: dict[int, RunUpdate] = {}
        if takes_rows(store.client):
            updates = {one.trial: one.update() for one in children if one.is_sure}
            together = {trial: update for trial, update in updates.items() if is_plain(update)}
        refused = _send_rows(store, children, together)
        if not refused:
            each = [child for child in children if child.trial not in together]
            refused = self._send_each(store, each)
        for child in children:
            if child.run_id is not None:
                self._run_ids[child.trial] = child.run_id
        return refused

    def _send_each(self, store: Store, children: Sequence[ChildRun]) -> dict[int, Exception]:
        """Sends children by MLflow's client, to a server several at a time."""
        refused: dict[int, Exception] = {}

        def send(child: ChildRun) -> float:
            started = time.thread_time()
            try:
                if not refused:
                    self._send(store.client, store.experiment_id, child)
            except Exception as error:
                refused[child.trial] = error
            return time.thread_time() - started

        if is_database(store.client) or not children:
            for child in children:
                send(child)
        else:
            with ThreadPoolExecutor(SENDERS, "mlflow-sender") as senders:
                self.seconds += sum(senders.map(send, children))
        return refused

    def _send(self, client: MlflowClient, experiment_id: str, child: ChildRun) -> None:
        """Sends what is known, in as few requests as MLflow allows.

        Raises:
            Exception: What the store answers.
        """
        if child.original is not None:
            found = read_run(client, self._run_ids[child.original])
            child.fill(found.metrics, found.tags, found.status, found.ended_ms)
        is_known = not child.unsure and not (self._resumed and child.run_id is None)
        child.unsure = True
        if not is_known:
            self._look(client, experiment_id, child)
        if child.run_id is None:
            child.note_made(create_run(client, experiment_id, child.update()))
        assert child.run_id is not None
        update = child.update()
        fill_run(client, child.run_id, update)
        end_run(client, child.run_id, update)
        child.note_sent(child.run_id)

    def _look(self, client: MlflowClient, experiment_id: str, child: ChildRun) -> None:
        """Finds out what the store has of a run, and opens it again if its trial goes on."""
        if child.run_id is None:
            parent = child.tags["mlflow.parentRunId"]
            query = f"tags.`mlflow.parentRunId` = '{parent}' and tags.trial = '{child.trial}'"
            made = client.search_runs([experiment_id], query, max_results=1)
            if not made:
                return
            child.run_id = str(made[0].info.run_id)
        found = read_run(client, child.run_id)
        for name in child.compare(found):
            client.delete_tag(child.run_id, name)
        if child.status is None and found.status != "RUNNING":
            client.update_run(child.run_id, "RUNNING")


def _send_rows(
    store: Store, children: Sequence[ChildRun], updates: Mapping[int, RunUpdate]
) -> dict[int, Exception]:
    """Sends children of which these are the updates."""
    of_trial = {child.trial: child for child in children}
    for part in _parts(updates):
        for trial in part:
            # If this fails, the answer alone may have been lost.
            of_trial[trial].unsure = True
        try:
            ids = write_runs(store.client, store.experiment_id, list(part.values()))
        except Exception as error:
            return dict.fromkeys(part, error)
        for trial, run_id in zip(part, ids, strict=True):
            of_trial[trial].note_sent(run_id)
    return {}


def _parts(updates: Mapping[int, RunUpdate]) -> Iterator[dict[int, RunUpdate]]:
    """Divides updates into transactions of moderate length, at least one in each."""
    part: dict[int, RunUpdate] = {}
    values = 0
    for trial, update in updates.items():
        its = len(update.metrics) + len(update.params) + len(update.tags)
        if part and values + its > MOST_VALUES:
            yield part
            part, values = {}, 0
        part[trial] = update
        values += its
    if part:
        yield part
