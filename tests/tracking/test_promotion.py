"""Who is champion, in a real registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from mlops.data.features import FeatureEncoder
from mlops.errors import InputError, TrackingError
from mlops.hyperparameters import Hyperparameters
from mlops.nn.mlp import MLP
from mlops.tracking import promotion, registry
from mlops.tracking.model import log_model
from mlops.tracking.promotion import Promotion
from mlops.tracking.pyfunc import Predictor
from mlops.tracking.store import Store

ROWS = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": list("xyxy")})


def register(
    store: Store,
    score: float = 0.5,
    rows: pd.DataFrame = ROWS,
    classes: tuple[Any, ...] = ("no", "yes"),
    digest: str | None = "d",
) -> int:
    """Registers a model that carries its score as its learning rate, and returns its version."""
    encoder = FeatureEncoder.fit(rows)
    hyperparameters = Hyperparameters(hidden_dims=(4,), learning_rate=score)
    mlp = MLP.of(hyperparameters, encoder.width, len(classes))
    mlp.reset(torch.Generator().manual_seed(0))
    model = log_model(
        store,
        store.client.create_run(store.experiment_id).info.run_id,
        mlp=mlp,
        hyperparameters=hyperparameters,
        encoder=encoder,
        classes=list(classes),
        target_name="y",
        example=rows,
        card={"data": {"digest": digest}} if digest else {},
    )
    return registry.register(store, model)


def score_of(model: Predictor) -> float:
    return model.hyperparameters.learning_rate


def challenge(store: Store, version: int, metric: str = "test_accuracy") -> Promotion:
    return promotion.challenge(store, "mlp", version, metric, score_of)


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
        ("test_accuracy", 0.6, True),
        ("test_accuracy", 0.5, False),
        ("test_accuracy", 0.4, False),
        ("test_loss", 0.4, True),
        ("test_loss", 0.5, False),
        ("test_loss", 0.6, False),
    ],
)
def test_a_better_candidate_is_champion(
    metric: str, score: float, wins: bool, sqlite_store: Store
) -> None:
    first, second = register(sqlite_store, 0.5), register(sqlite_store, score)
    challenge(sqlite_store, first)
    done = challenge(sqlite_store, second, metric)
    told = f"{metric} {score:.4f} against 0.5000 of version 1"
    assert done == Promotion(second if wins else first, first, told)
    assert champion(sqlite_store) == done.champion


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"rows": ROWS.rename(columns={"b": "c"})}, "columns gone 'b'; columns added 'c'"),
        ({"rows": ROWS.assign(a=list("pqpq"))}, "columns of another kind 'a'"),
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


@pytest.mark.parametrize("digest", ["e", None])
def test_another_table_is_told(digest: str | None, sqlite_store: Store) -> None:
    first, second = register(sqlite_store), register(sqlite_store, 0.9, digest=digest)
    challenge(sqlite_store, first)
    done = challenge(sqlite_store, second)
    assert done.champion == second
    assert done.reason.endswith("of version 1, which was trained on another table")


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
