"""Who is champion: the version that is served, and those that were before it.

The alias `champion` names it. The registered model's tag `champions` lists the earlier ones, oldest
first, so that a promotion can be taken back. Whoever moves the alias first takes a lease on the
registered model and looks again: what was decided while another one moved it is decided anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mlops.errors import InputError, TableError, TrackingError
from mlops.nn.tasks.metrics import Metric
from mlops.tracking.models import registry
from mlops.tracking.models.registry import CHAMPION
from mlops.tracking.models.stand_in import difference, read_otherwise
from mlops.tracking.pyfunc import Predictor
from mlops.tracking.store.lease import Lease, PromoterTag
from mlops.tracking.store.store import Registry, explained, patiently

HISTORY_TAG = "champions"
# Of a version that has challenged: whom.
CHALLENGED_TAG = "challenged"
# MLflow cuts or refuses longer tags; as many promotions can be taken back.
LONGEST_HISTORY = 100
# Others have the lease for moments, each of them, or have died with it.
TURN_SECONDS = 120.0


@dataclass(frozen=True)
class Promotion:
    """How the question who is champion was answered.

    Attributes:
        champion: The version that is champion now; None if there is none.
        before: The version that was before; None if there was none.
        reason: Why, in a line.
    """

    champion: int | None
    before: int | None
    reason: str


def challenge(
    store: Registry, name: str, version: int, metric: Metric, score: Callable[[Predictor], float]
) -> Promotion:
    """Makes a candidate the champion if it is better on the test part that it was scored on.

    Champion and candidate are scored on the same rows. The candidate has never seen them; a
    champion that was split otherwise may have, which counts in its favour. So a candidate that wins
    has won fairly, and one that loses may still be promoted by hand.

    A candidate must take the rows that the champion's clients send, and answer with its classes. It
    may read them otherwise: leave a column out, or take one for dates that was text. That is told.
    If the champion cannot read the test rows as they are read now, the candidate wins: no later one
    would be read otherwise, so the first reading would stay for ever, however bad it is.

    If another one becomes champion meanwhile, the candidate is compared with that one.

    Each version challenges once: who resumes a study that has ended does not undo what was
    decided by hand since.

    Args:
        store: Where the registry is.
        name: The registered model.
        version: The candidate.
        metric: What `score` measures.
        score: Scores a model on the candidate's test part.

    Raises:
        TrackingError: The store refuses, or the candidate is damaged.
    """
    candidate = registry.load_version(store, name, version)
    while True:
        before = registry.version_of(store, name, CHAMPION)
        verdict = _compare(store, candidate, before, metric, score)
        with _turn(store, name, before) as turn:
            if turn is None:
                continue
            if verdict.crowns:
                _crown(store, name, version, before)
            if verdict.against:
                _note_challenge(store, name, version, verdict.against)
            return Promotion(version if verdict.crowns else before, before, verdict.reason)


@dataclass(frozen=True)
class _Verdict:
    """What comes of a challenge: whether it is won, why, and against whom it was."""

    crowns: bool
    reason: str
    against: str = ""


def _compare(
    store: Registry,
    candidate: registry.RegisteredModel,
    before: int | None,
    metric: Metric,
    score: Callable[[Predictor], float],
) -> _Verdict:
    name, version = candidate.name, candidate.version
    if before == version:
        # Its driver may have died before it noted it.
        return _Verdict(False, "it is champion already", "nobody")
    if before is None:
        return _Verdict(True, "there was no champion", "no champion")
    if _was_challenged(store, name, version):
        return _Verdict(False, f"version {version} has challenged before")
    try:
        # A store that stumbles is no reason to keep a worse champion.
        champion = patiently(store, lambda: registry.load_version(store, name, before), 3.0)
    except TrackingError as error:
        return _Verdict(False, f"version {before} cannot be compared: {error}")
    differs = difference(champion.predictor, candidate.predictor)
    if differs:
        return _Verdict(False, f"it differs from version {before}: {differs}")
    reading = read_otherwise(champion.predictor, candidate.predictor)
    measured = f"test_{metric.name}"
    try:
        old = score(champion.predictor)
    except TableError as error:
        better, new = True, score(candidate.predictor)
        told = f"{measured} {new:.4f}; version {before} cannot read the rows ({error.problems[0]})"
    else:
        new = score(candidate.predictor)
        better = metric.is_better(new, old)
        told = f"{measured} {new:.4f} against {old:.4f} of version {before}"
    if _digest(champion) != _digest(candidate):
        told += ", which was trained on other rows"
    return _Verdict(better, told + reading, f"version {before}")


def promote(
    store: Registry, name: str, which: int | str, *, allow_schema_change: bool = False
) -> Promotion:
    """Makes a version the champion, whatever its score.

    Args:
        store: Where the registry is.
        name: The registered model.
        which: A version's number or alias.
        allow_schema_change: Whether its columns or classes may differ from the champion's.

    Raises:
        InputError: They differ.
        TrackingError: There is no such version, it is damaged, or the store refuses.
    """
    model = registry.load_version(store, name, which)
    while True:
        before = registry.version_of(store, name, CHAMPION)
        if before == model.version:
            return Promotion(before, before, f"version {before} was champion already")
        reading = ""
        if before is not None and not allow_schema_change:
            reading = _check_schema(store, name, before, model)
        with _turn(store, name, before) as turn:
            if turn is None:
                continue
            _crown(store, name, model.version, before)
            return Promotion(model.version, before, f"promoted by hand{reading}")


def rollback(store: Registry, name: str) -> Promotion:
    """Makes the champion before the present one champion again.

    Raises:
        InputError: There is none.
        TrackingError: It is damaged, or the store refuses.
    """
    while True:
        before = registry.version_of(store, name, CHAMPION)
        earlier = _history(store, name)
        while earlier and earlier[-1] == before:
            earlier.pop()
        if not earlier:
            raise InputError(
                f"there must be an earlier champion of `{name}` to go back to, got none; promote a "
                "version with --version"
            )
        model = registry.load_version(store, name, earlier[-1])
        with _turn(store, name, before) as turn:
            if turn is None:
                continue
            # In this order: what is named twice is dropped above, what is not named would be lost.
            registry.move_alias(store, name, CHAMPION, model.version)
            _set_history(store, name, earlier[:-1])
            return Promotion(model.version, before, "rolled back")


@contextmanager
def _turn(store: Registry, name: str, before: int | None) -> Iterator[Lease | None]:
    """Yields once nobody else moves the alias; None if it is no longer where it was.

    Raises:
        TrackingError: Another one does not come to an end, or the store does not answer.
    """
    lease = Lease(PromoterTag(store, name))
    try:
        lease.wait(TURN_SECONDS)
    except InputError as error:
        raise TrackingError(str(error)) from error
    try:
        now = registry.version_of(store, name, CHAMPION)
        lease.hold()
        yield lease if now == before else None
    finally:
        lease.release()


def _digest(model: registry.RegisteredModel) -> str | None:
    digest: str | None = model.card.get("data", {}).get("digest")  # a card may be empty
    return digest


def _was_challenged(store: Registry, name: str, version: int) -> bool:
    with explained(store):
        return CHALLENGED_TAG in store.models.get_model_version(name, str(version)).tags


def _note_challenge(store: Registry, name: str, version: int, by: str) -> None:
    with explained(store):
        store.models.set_model_version_tag(name, str(version), CHALLENGED_TAG, by)


def _crown(store: Registry, name: str, version: int, before: int | None) -> None:
    if before is not None:
        _set_history(store, name, [*_history(store, name), before][-LONGEST_HISTORY:])
    registry.move_alias(store, name, CHAMPION, version)


def _history(store: Registry, name: str) -> list[int]:
    with explained(store):
        tags = store.models.get_registered_model(name).tags
    return [int(version) for version in json.loads(tags.get(HISTORY_TAG, "[]"))]


def _set_history(store: Registry, name: str, versions: list[int]) -> None:
    with explained(store):
        store.models.set_registered_model_tag(name, HISTORY_TAG, json.dumps(versions))


def _check_schema(store: Registry, name: str, before: int, model: registry.RegisteredModel) -> str:
    """Checks that a version takes the champion's rows; returns what it reads otherwise."""
    reading = ""
    try:
        champion = registry.load_version(store, name, before)
        differs = difference(champion.predictor, model.predictor)
        reading = read_otherwise(champion.predictor, model.predictor)
    except TrackingError as error:
        differs = f"the champion's columns cannot be read ({error})"
    if differs:
        raise InputError(
            f"a champion must take the rows that the one before it took, got version "
            f"{model.version} after version {before}: {differs}; clients may fail, so say "
            "--allow-schema-change if they are ready for it"
        )
    return reading
