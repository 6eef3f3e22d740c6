"""The champion: taking up a version, refusing one, and what requests see of it."""

from __future__ import annotations

import logging
import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from endpoint_harness import (
    Endpoint,
    mixed_table,
    numeric_table,
    point,
    register,
    rows_of,
    serve_champion,
)

from mlops.serving.champion.champion import Champion
from mlops.tracking.store.store import Store

FRAME = mixed_table()
ROWS = rows_of(FRAME.head(5))


def champion_of(endpoint: Endpoint) -> Champion:
    assert endpoint.champion is not None
    return endpoint.champion


def version(champion: Champion) -> int | None:
    return None if champion.model is None else champion.model.version


def test_an_endpoint_opens_without_a_model_and_takes_up_the_first(store: Store) -> None:
    with serve_champion(store) as endpoint:
        for path, body in [
            ("/predict", {"rows": ROWS}),
            ("/invocations", {"dataframe_records": ROWS}),
            ("/v2/models/mlp/infer", {"inputs": []}),
            ("/v2/models/mlp", None),
            ("/model", None),
        ]:
            answer = endpoint.ask(path, body)
            assert answer.status_code == 503, path
            assert "python -m ray_jobs.tune" in answer.text
            assert answer.headers["Retry-After"]
            assert "X-Model-Version" not in answer.headers
        assert endpoint.ask("/model").json()["error"]["code"] == "no_model"
        assert endpoint.ask("/model").json()["model"] is None
        assert endpoint.ask("/ping").status_code == 503
        assert endpoint.ask("/v2/health/live").status_code == 200
        assert endpoint.ask("/v2/health/ready").status_code == 503
        assert endpoint.ask("/docs").status_code == 200
        assert "/predict" in endpoint.ask("/openapi.json").json()["paths"]
        assert endpoint.ask("/metrics").status_code == 200

        register(store, FRAME)
        champion_of(endpoint).refresh()
        answer = endpoint.ask("/predict", {"rows": ROWS})
        assert answer.status_code == 200
        assert answer.headers["X-Model-Version"] == "1"
        assert endpoint.ask("/ping").status_code == 200


def test_the_thread_follows_the_alias_both_ways(store: Store) -> None:
    register(store, FRAME)
    with serve_champion(store, poll_seconds=0.05) as endpoint:
        register(store, FRAME, seed=1)
        wait_for(endpoint, 2)
        point(store, 1)
        wait_for(endpoint, 1)


def wait_for(endpoint: Endpoint, number: int) -> None:
    arrived = threading.Event()
    for _ in range(2000):
        if version(champion_of(endpoint)) == number:
            return
        arrived.wait(0.01)
    raise AssertionError(f"version {number} was not taken up")


def test_swaps_and_rollbacks_under_load_lose_and_mix_nothing(store: Store) -> None:
    register(store, FRAME, seed=0)
    register(store, FRAME, seed=1, alias=None)
    body = {"rows": rows_of(FRAME)}
    with serve_champion(store) as endpoint:
        champion = champion_of(endpoint)
        answers: dict[int, Any] = {}
        for number in (2, 1):
            point(store, number)
            champion.refresh()
            answers[number] = endpoint.ask("/predict", body).json()
            assert answers[number]["model"]["version"] == number
        assert answers[1]["predictions"] != answers[2]["predictions"]

        stop = threading.Event()
        wrong: list[Any] = []
        seen: Counter[int] = Counter()

        def load() -> None:
            while not stop.is_set():
                answer = endpoint.ask("/predict", body)
                content = answer.json()
                number = content.get("model", {}).get("version")
                if answer.status_code != 200 or content != answers[number]:
                    wrong.append((answer.status_code, content))
                seen[number] += 1

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in [2, 1] * 10:
            point(store, number)
            champion.refresh()
            before = seen[number]
            for _ in range(1000):  # until the version has answered
                if seen[number] > before:
                    break
                stop.wait(0.01)
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert min(seen[1], seen[2]) >= 5


def tamper(location: Path, how: str) -> None:
    weights = location / "predictor" / "weights.safetensors"
    if how == "weights":
        weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    elif how == "pickle":
        (location / "data" / "model.pth").write_bytes(b"cos\nsystem\n(S'touch planted'\ntR.")
    elif how == "pickle for weights":
        weights.write_bytes(b"cos\nsystem\n(S'touch planted'\ntR.")
    elif how == "gone":
        shutil.rmtree(location)


@pytest.mark.parametrize("how", ["weights", "pickle", "pickle for weights", "gone"])
def test_a_version_that_was_tampered_with_is_refused(
    how: str, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    register(store, FRAME)
    with serve_champion(store) as endpoint:
        champion = champion_of(endpoint)
        number, logged = register(store, FRAME, seed=1)
        tamper(Path(logged.location), how)
        with caplog.at_level(logging.INFO, logger="mlops.serving"):
            for _ in range(3):
                champion.refresh()
        said = [record for record in caplog.records if "refused" in record.getMessage()]
        assert len(said) == 1
        assert version(champion) == 1
        shown = endpoint.ask("/model").json()
        assert shown["version"] == 1
        assert shown["refused"]["version"] == number
        assert "must" in shown["refused"]["reason"]
        assert endpoint.ask("/predict", {"rows": ROWS}).headers["X-Model-Version"] == "1"
        assert b'mlops_swaps_total{outcome="refused"} 1.0' in endpoint.ask("/metrics").content

        point(store, 1)
        champion.refresh()
        assert endpoint.ask("/model").json()["refused"] is None
    assert not list(tmp_path.rglob("planted"))


def test_a_version_with_other_answers_than_recorded_is_refused(store: Store) -> None:
    register(store, FRAME)
    champion = Champion(store.uri)
    champion.refresh()
    register(store, FRAME, change_card=lambda card: card["sample"]["probabilities"][0].reverse())
    champion.refresh()
    assert version(champion) == 1
    assert champion.refused is not None
    assert champion.refused.version == 2
    assert "must give the probabilities recorded with it" in champion.refused.reason


def test_a_version_without_a_sample_or_a_card_is_refused(store: Store) -> None:
    champion = Champion(store.uri)
    for number, change in enumerate([lambda card: card.pop("sample"), dict.clear], 1):
        register(store, FRAME, change_card=change)
        champion.refresh()
        assert champion.model is None
        assert champion.refused is not None
        assert champion.refused.version == number
        with pytest.raises(Exception, match=f"version {number} refused"):
            champion.required()


def test_a_version_refused_is_tried_again_when_it_may_have_been_mended(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, logged = register(store, FRAME)
    weights = Path(logged.location) / "predictor" / "weights.safetensors"
    sound = weights.read_bytes()
    weights.write_bytes(sound[:-1] + b"\1")
    champion = Champion(store.uri)
    champion.refresh()
    weights.write_bytes(sound)
    champion.refresh()
    assert champion.model is None
    monkeypatch.setattr(champion, "_retry_at", 0.0)
    champion.refresh()
    assert version(champion) == 1
    assert champion.refused is None


def test_a_model_of_other_columns_is_served_by_its_own(store: Store) -> None:
    register(store, FRAME)
    with serve_champion(store) as endpoint:
        numbers = numeric_table(n_columns=2)
        register(store, numbers)
        assert endpoint.ask("/predict", {"rows": ROWS}).status_code == 200
        champion_of(endpoint).refresh()
        refused = endpoint.ask("/predict", {"rows": ROWS})
        assert refused.status_code == 422
        assert refused.headers["X-Model-Version"] == "2"
        assert endpoint.ask("/predict", {"rows": rows_of(numbers)}).status_code == 200
        assert list(endpoint.ask("/model").json()["columns"]) == list(numbers.columns)
        assert "feature_0" in endpoint.ask("/openapi.json").text


def test_a_registry_that_does_not_answer_leaves_the_old_version_serving(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    register(store, FRAME)
    database = tmp_path / "mlflow.db"
    with serve_champion(store) as endpoint:
        champion = champion_of(endpoint)
        kept = database.read_bytes()
        database.write_bytes(b"no database " * 1000)
        with caplog.at_level(logging.INFO, logger="mlops.serving"):
            champion.refresh()
            champion.refresh()
        assert len([r for r in caplog.records if "does not answer" in r.getMessage()]) == 1
        assert endpoint.ask("/predict", {"rows": ROWS}).status_code == 200
        assert endpoint.ask("/model").json()["registry_error"]
        database.write_bytes(kept)
        champion.refresh()
        assert endpoint.ask("/model").json()["registry_error"] is None


def test_a_registry_that_was_never_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    champion = Champion(f"sqlite:///{tmp_path}/file/mlflow.db")
    champion.refresh()
    with pytest.raises(Exception, match="got no registry"):
        champion.required()


def test_a_model_that_was_deleted_and_made_again_is_taken_up(store: Store) -> None:
    """Its versions count from 1 again."""
    register(store, FRAME)
    champion = Champion(store.uri)
    champion.refresh()
    store.client.delete_registered_model_alias("mlp", "champion")
    store.client.delete_registered_model("mlp")
    register(store, numeric_table(n_columns=2))
    champion.refresh()
    assert champion.model is not None
    assert champion.model.version == 1
    assert list(champion.model.columns.names) == ["feature_0", "feature_1"]


def test_a_database_that_is_moved_away_is_said_and_another_in_its_place_is_read(
    store: Store, tmp_path: Path
) -> None:
    database, copy = tmp_path / "mlflow.db", tmp_path / "copy.db"
    register(store, FRAME)
    shutil.copy(database, copy)
    register(store, FRAME, seed=1)
    champion = Champion(store.uri)
    champion.refresh()
    assert version(champion) == 2
    database.rename(tmp_path / "away.db")
    champion.refresh()
    assert version(champion) == 2
    assert champion.registry_error is not None
    assert "must be there" in champion.registry_error
    assert not database.exists()
    shutil.copy(copy, database)
    champion.refresh()
    assert champion.registry_error is None
    assert version(champion) == 1


def test_an_alias_that_is_removed_changes_nothing(store: Store) -> None:
    register(store, FRAME)
    champion = Champion(store.uri)
    champion.refresh()
    store.client.delete_registered_model_alias("mlp", "champion")
    champion.refresh()
    assert version(champion) == 1


def test_the_answers_are_those_of_the_registered_model(store: Store) -> None:
    from mlops.tracking.models import registry

    register(store, FRAME)
    champion = Champion(store.uri)
    champion.refresh()
    assert champion.model is not None
    np.testing.assert_allclose(
        champion.model.probabilities_of(FRAME),
        registry.load_version(store, "mlp", 1).predictor.probabilities(FRAME),
        rtol=0,
        atol=1e-6,
    )
