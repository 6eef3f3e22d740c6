"""Who is champion, in a real registry."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from dying import processes

from mlops.configuration.hyperparameters import Hyperparameters
from mlops.data.columns.features import FeatureEncoder
from mlops.errors import InputError, TrackingError
from mlops.nn.mlp import MLP
from mlops.nn.tasks.classification import Classification
from mlops.nn.tasks.metrics import METRICS, Metric
from mlops.tracking.models import promotion, registry
from mlops.tracking.models.model import log_model
from mlops.tracking.models.promotion import Promotion
from mlops.tracking.pyfunc import Predictor
from mlops.tracking.store import lease
from mlops.tracking.store.lease import Lease, PromoterTag
from mlops.tracking.store.store import Store, open_store

ROWS = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": list("xyxy")})


def register(
    store: Store,
    score: float = 0.5,
    rows: pd.DataFrame = ROWS,
    classes: tuple[Any, ...] = ("no", "yes"),
    digest: str | None = "d",
    columns: tuple[str, ...] = (),
) -> int:
    """Registers a model that carries its score as its learning rate, and returns its version.

    Of `columns`, those of the training table, it has learned those that are in `rows`.
    """
    encoder = FeatureEncoder.fit(rows)
    hyperparameters = Hyperparameters(hidden_dims=(4,), learning_rate=score)
    mlp = MLP.of(hyperparameters, encoder.width, len(classes))
    mlp.reset(torch.Generator().manual_seed(0))
    model = log_model(
        store,
        store.client.create_run(store.experiment_id).info.run_id,
        Predictor(
            mlp, encoder, Classification(list(classes)), "y", hyperparameters, tuple(columns)
        ),
        example=rows,
        card={"data": {"digest": digest}} if digest else {},
    )
    return registry.register(store, model)


def score_of(model: Predictor) -> float:
    return model.hyperparameters.learning_rate


def challenge(store: Store, version: int, metric: str = "accuracy") -> Promotion:
    return promotion.challenge(store, "mlp", version, METRICS[f"val_{metric}"], score_of)


def champion(store: Store) -> int | None:
    return registry.version_of(store, "mlp", "champion")


def test_the_first_model_is_champion(store: Store) -> None:
    first = register(store)
    before = champion(store)
    assert challenge(store, first) == Promotion(first, before, "there was no champion")
    assert champion(store) == first


@pytest.mark.parametrize(
    ("metric", "score", "wins"),
    [
        ("accuracy", 0.6, True),
        ("accuracy", 0.5, False),
        ("accuracy", 0.4, False),
        ("loss", 0.4, True),
        ("loss", 0.5, False),
        ("loss", 0.6, False),
    ],
)
def test_a_better_candidate_is_champion(
    metric: str, score: float, wins: bool, sqlite_store: Store
) -> None:
    first, second = register(sqlite_store, 0.5), register(sqlite_store, score)
    challenge(sqlite_store, first)
    done = challenge(sqlite_store, second, metric)
    told = f"test_{metric} {score:.4f} against 0.5000 of version 1"
    assert done == Promotion(second if wins else first, first, told)
    assert champion(sqlite_store) == done.champion


@pytest.mark.parametrize(("mode", "wins"), [("min", True), ("max", False)])
def test_the_metric_says_which_is_better_whatever_it_is_called(
    mode: str, wins: bool, sqlite_store: Store
) -> None:
    first, second = register(sqlite_store, 0.5), register(sqlite_store, 0.4)
    challenge(sqlite_store, first)
    metric = Metric("rmse", mode, 1e6)
    done = promotion.challenge(sqlite_store, "mlp", second, metric, score_of)
    told = "test_rmse 0.4000 against 0.5000 of version 1"
    assert done == Promotion(second if wins else first, first, told)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"rows": ROWS.rename(columns={"b": "c"})}, "columns gone 'b'; columns added 'c'"),
        ({"rows": ROWS[["a"]], "columns": ("a", "y")}, "columns gone 'b'"),
        (
            {"rows": ROWS[["a"]].assign(c=1.0), "columns": ("a", "b", "c", "y")},
            "columns added 'c'",
        ),
        ({"classes": ("no", "yes", "maybe")}, "classes added 'maybe'"),
        ({"classes": (0, 1)}, "classes gone 'no', 'yes'; classes added 0, 1"),
    ],
)
def test_a_candidate_that_takes_or_gives_something_else_is_promoted_by_hand_only(
    other: dict[str, Any], reason: str, sqlite_store: Store
) -> None:
    first, second = register(sqlite_store), register(sqlite_store, 0.9, **other)
    challenge(sqlite_store, first)
    assert challenge(sqlite_store, second).reason == f"it differs from version 1: {reason}"
    with pytest.raises(InputError, match=f"{reason}.*--allow-schema-change"):
        promotion.promote(sqlite_store, "mlp", second)
    assert champion(sqlite_store) == first
    done = promotion.promote(sqlite_store, "mlp", second, allow_schema_change=True)
    assert done == Promotion(second, first, "promoted by hand")
    assert champion(sqlite_store) == second


READ_OTHERWISE = [
    ({"rows": ROWS.assign(a=list("pqpq"))}, "read as categorical now: 'a'"),
    ({"rows": ROWS.assign(b=[1.0, 2.0, 1.0, 2.0])}, "read as numeric now: 'b'"),
    ({"rows": ROWS[["b"]], "columns": ("a", "b", "y")}, "left out now: 'a'"),
    (
        {"rows": ROWS[["b"]].assign(b=1.5), "columns": ("b", "a", "y", "id")},
        "left out now: 'a'; read as numeric now: 'b'",
    ),
]


@pytest.mark.parametrize(("other", "told"), READ_OTHERWISE)
@pytest.mark.parametrize("wins", [True, False])
def test_a_candidate_that_reads_the_same_rows_otherwise_may_win(
    other: dict[str, Any], told: str, wins: bool, sqlite_store: Store
) -> None:
    first, second = register(sqlite_store), register(sqlite_store, 0.9 if wins else 0.1, **other)
    challenge(sqlite_store, first)
    done = challenge(sqlite_store, second)
    assert done.champion == (second if wins else first)
    assert done.reason.endswith(f"against 0.5000 of version 1; {told}")


@pytest.mark.parametrize(("other", "told"), READ_OTHERWISE)
def test_one_that_reads_otherwise_is_promoted_by_hand_without_more(
    other: dict[str, Any], told: str, sqlite_store: Store
) -> None:
    first, second = register(sqlite_store), register(sqlite_store, **other)
    challenge(sqlite_store, first)
    done = promotion.promote(sqlite_store, "mlp", second)
    assert done == Promotion(second, first, f"promoted by hand; {told}")


def test_a_champion_that_cannot_read_the_rows_gives_way(sqlite_store: Store) -> None:
    first = register(sqlite_store)
    second = register(sqlite_store, 0.1, rows=ROWS[["b"]], columns=("a", "b", "y"))
    challenge(sqlite_store, first)

    def score(model: Predictor) -> float:
        model.encoder.transform(ROWS[["b"]])
        return score_of(model)

    done = promotion.challenge(sqlite_store, "mlp", second, METRICS["val_accuracy"], score)
    assert done.champion == second
    assert re.fullmatch(
        r"test_accuracy 0\.1000; version 1 cannot read the rows \(.*'a' absent; .*\); "
        r"left out now: 'a'",
        done.reason,
    )


@pytest.mark.parametrize("digest", ["e", None])
def test_another_table_is_told(digest: str | None, sqlite_store: Store) -> None:
    first, second = register(sqlite_store), register(sqlite_store, 0.9, digest=digest)
    challenge(sqlite_store, first)
    done = challenge(sqlite_store, second)
    assert done.champion == second
    assert done.reason.endswith("of version 1, which was trained on other rows")


def test_rolling_back_walks_through_the_earlier_champions(store: Store) -> None:
    versions = [register(store) for _ in range(3)]
    for version in versions:
        promotion.promote(store, "mlp", version, allow_schema_change=True)
    assert promotion.promote(store, "mlp", "candidate").reason.endswith("was champion already")
    assert promotion.rollback(store, "mlp") == Promotion(versions[1], versions[2], "rolled back")
    assert promotion.rollback(store, "mlp").champion == versions[0]
    assert champion(store) == versions[0]


def test_what_was_decided_by_hand_stays_so_when_a_study_is_resumed(sqlite_store: Store) -> None:
    first, second = register(sqlite_store, 0.5), register(sqlite_store, 0.9)
    challenge(sqlite_store, first)
    assert challenge(sqlite_store, second).champion == second
    promotion.rollback(sqlite_store, "mlp")
    told = f"version {second} has challenged before"
    assert challenge(sqlite_store, second) == Promotion(first, first, told)
    assert champion(sqlite_store) == first


def test_who_resumes_a_study_that_died_after_crowning_does_not_crown_again(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = register(sqlite_store, 0.5), register(sqlite_store, 0.9)
    challenge(sqlite_store, first)
    with monkeypatch.context() as dying:
        dying.setattr(promotion, "_note_challenge", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            challenge(sqlite_store, second)
    assert challenge(sqlite_store, second).reason == "it is champion already"
    promotion.rollback(sqlite_store, "mlp")
    assert challenge(sqlite_store, second).champion == first


def test_rolling_back_further_than_there_were_champions(sqlite_store: Store) -> None:
    with pytest.raises(TrackingError, match="mlp"):
        promotion.rollback(sqlite_store, "mlp")
    promotion.promote(sqlite_store, "mlp", register(sqlite_store))
    with pytest.raises(InputError, match="earlier champion of `mlp` to go back to, got none"):
        promotion.rollback(sqlite_store, "mlp")


def test_a_damaged_champion_is_not_replaced_by_itself(sqlite_store: Store) -> None:
    first, second = register(sqlite_store), register(sqlite_store, 0.9)
    challenge(sqlite_store, first)
    source = sqlite_store.client.get_model_version("mlp", str(first)).source
    (Path(source) / "predictor" / "model.json").unlink()
    assert "version 1 cannot be compared" in challenge(sqlite_store, second).reason
    with pytest.raises(InputError, match="columns cannot be read"):
        promotion.promote(sqlite_store, "mlp", second)
    assert promotion.promote(sqlite_store, "mlp", second, allow_schema_change=True).champion == 2


def test_a_damaged_version_is_never_champion(sqlite_store: Store) -> None:
    first, second = register(sqlite_store), register(sqlite_store, 0.9)
    promotion.promote(sqlite_store, "mlp", first)
    source = sqlite_store.client.get_model_version("mlp", str(second)).source
    (Path(source) / "predictor" / "weights.safetensors").write_bytes(b"")
    with pytest.raises(TrackingError, match="files must be those that were recorded"):
        promotion.promote(sqlite_store, "mlp", second)
    assert champion(sqlite_store) == first


def challenge_meeting(
    uri: str, version: int, scores: Any, meeting: Callable[[], object]
) -> Promotion:
    """Challenges in a store of its own; the first time that a model is scored, others may act."""
    waiting = [meeting]

    def score(model: Predictor) -> float:
        scores.append(score_of(model))
        if waiting:
            waiting.pop()()
        return score_of(model)

    return promotion.challenge(open_store(uri), "mlp", version, METRICS["val_accuracy"], score)


def begin_with(store: Store, score: float) -> tuple[int, list[int]]:
    """Makes a model champion; returns its version and the history so far."""
    version = register(store, score)
    promotion.promote(store, "mlp", version, allow_schema_change=True)
    return version, promotion._history(store, "mlp")


def assert_the_better_is_champion(
    store: Store, before: int, history: list[int], worse: int, better: int
) -> None:
    assert champion(store) == better
    # The worse one was champion for a moment, or was compared with the better one and lost.
    assert promotion._history(store, "mlp") in ([*history, before, worse], [*history, before])
    tags = [store.client.get_model_version("mlp", str(v)).tags for v in (worse, better)]
    met = {version_tags[promotion.CHALLENGED_TAG] for version_tags in tags}
    assert met in (
        {f"version {before}", f"version {worse}"},
        {f"version {before}", f"version {better}"},
    )
    assert PromoterTag.name not in store.client.get_registered_model("mlp").tags


@pytest.mark.parametrize("scores", [(0.6, 0.9), (0.9, 0.6)])
def test_of_two_studies_that_end_together_the_better_one_is_champion(
    scores: tuple[float, float], store: Store
) -> None:
    """Both score the champion of before ere the first of them is crowned."""
    before, history = begin_with(store, 0.5)
    versions = [register(store, score) for score in scores]
    meeting = threading.Barrier(2, timeout=60)
    with ThreadPoolExecutor(2) as threads:
        ends = [
            threads.submit(challenge_meeting, store.uri, version, [], meeting.wait)
            for version in versions
        ]
        for end in ends:
            end.result()
    worse, better = (version for _, version in sorted(zip(scores, versions, strict=True)))
    assert_the_better_is_champion(store, before, history, worse, better)


def test_so_it_is_of_two_processes(sqlite_store: Store) -> None:
    before, history = begin_with(sqlite_store, 0.5)
    worse, better = register(sqlite_store, 0.6), register(sqlite_store, 0.9)
    context = processes()
    meeting = context.Barrier(2, timeout=60)
    children = [
        context.Process(
            target=challenge_meeting, args=(sqlite_store.uri, version, [], meeting.wait)
        )
        for version in (worse, better)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0]
    assert_the_better_is_champion(sqlite_store, before, history, worse, better)


def test_of_two_first_models_the_better_one_is_champion(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = [register(sqlite_store, score) for score in (0.6, 0.9)]
    meeting, compare = threading.Barrier(2, timeout=60), promotion._compare
    met: set[int] = set()

    def compare_together(store: Store, candidate: Any, *given: Any) -> Any:
        verdict = compare(store, candidate, *given)
        if candidate.version not in met:
            met.add(candidate.version)
            meeting.wait()
        return verdict

    monkeypatch.setattr(promotion, "_compare", compare_together)
    with ThreadPoolExecutor(2) as threads:
        ends = [threads.submit(challenge, sqlite_store, version) for version in versions]
        assert {end.result().before for end in ends} in ({None, versions[0]}, {None, versions[1]})
    assert champion(sqlite_store) == versions[1]


@pytest.mark.parametrize(("score", "wins"), [(0.6, False), (0.9, True)])
@pytest.mark.parametrize("how", ["promote", "rollback"])
def test_what_is_decided_by_hand_meanwhile_is_compared_not_undone(
    how: str, score: float, wins: bool, sqlite_store: Store
) -> None:
    store = sqlite_store
    by_hand, before = register(store, 0.7), register(store, 0.5)
    if how == "rollback":
        promotion.promote(store, "mlp", by_hand)
    promotion.promote(store, "mlp", before)
    candidate = register(store, score)
    decide = {
        "promote": lambda: promotion.promote(store, "mlp", by_hand),
        "rollback": lambda: promotion.rollback(store, "mlp"),
    }
    scores: list[float] = []
    done = challenge_meeting(store.uri, candidate, scores, decide[how])
    assert done.before == by_hand
    assert done.reason == f"test_accuracy {score:.4f} against 0.7000 of version {by_hand}"
    assert scores == [0.5, score, 0.7, score]
    assert champion(store) == done.champion == (candidate if wins else by_hand)
    history = [before, by_hand] if how == "promote" else [by_hand]
    assert promotion._history(store, "mlp") == history[: len(history) - (not wins)]


def test_a_promoter_that_died_is_waited_for_no_longer_than_need_be(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lease, "SILENCE_SECONDS", 1.0)
    first, second = register(sqlite_store, 0.5), register(sqlite_store, 0.9)
    challenge(sqlite_store, first)
    dead = {"id": "x", "host": "far", "machine": "far", "pid": 1, "started": 0.0, "renewed": 3}
    PromoterTag(sqlite_store, "mlp").write(json.dumps(dead))
    assert challenge(sqlite_store, second).champion == second
    told = "waiting 1 s to see whether who chooses the champion of mlp on far is still there"
    assert told in capsys.readouterr().err


def test_a_promoter_that_does_not_end_is_told(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion, "TURN_SECONDS", 0.1)
    version = register(sqlite_store)
    held = Lease(PromoterTag(sqlite_store, "mlp")).take()
    told = "the champion of `mlp` must be chosen by one at a time, got one already"
    with pytest.raises(TrackingError, match=told):
        challenge(sqlite_store, version)
    with pytest.raises(TrackingError, match=told):
        promotion.promote(sqlite_store, "mlp", version)
    assert champion(sqlite_store) is None
    held.release()
