"""The numpy forward pass is torch's, and reading cells is encoding a table."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from endpoint_harness import make_card, make_predictor, mixed_table, numeric_table, rows_of

from mlops.configuration.hyperparameters import ACTIVATIONS
from mlops.errors import TrackingError
from mlops.serving.champion import network
from mlops.serving.champion.predictor import ServedModel
from mlops.serving.rows.reading import read_cells
from mlops.tracking import pyfunc
from mlops.tracking.models.registry import RegisteredModel


def served(predictor: pyfunc.Predictor, frame: pd.DataFrame) -> ServedModel:
    card = make_card(predictor, frame)
    return ServedModel.of(RegisteredModel("mlp", 1, "run", predictor, card))


def answers(model: ServedModel, rows: list[dict[str, Any]]) -> np.ndarray:
    return model.probabilities(read_cells(model.columns, model.columns.transposed(rows)))


def test_every_activation_has_a_forward_pass() -> None:
    assert set(network.ACTIVATIONS) == set(ACTIVATIONS)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden_dims", [(1,), (16,), (64, 32), (8, 8, 8, 8, 8)])
def test_numpy_gives_what_torch_gives(activation: str, hidden_dims: tuple[int, ...]) -> None:
    frame = numeric_table(n_rows=500)
    predictor = make_predictor(
        frame, hidden_dims=hidden_dims, activation=activation, classes=("a", "b", "c")
    )
    for tensor in predictor.mlp.state_dict().values():
        tensor.mul_(3.0)  # farther from the linear part of the activations
    model = served(predictor, frame)
    expected = predictor.probabilities(frame)
    np.testing.assert_allclose(model.probabilities_of(frame), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(answers(model, rows_of(frame)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_absurd_values_give_no_nan_and_no_warning(activation: str) -> None:
    frame = numeric_table(n_columns=2)
    predictor = make_predictor(frame, activation=activation)
    model = served(predictor, frame)
    rows = [{"feature_0": value, "feature_1": -value} for value in (1e300, -1e300, 1e-300, 0.0)]
    found = answers(model, rows)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(1), 1.0)
    np.testing.assert_allclose(found, predictor.probabilities(pd.DataFrame(rows)), atol=1e-6)


def test_many_rows_are_computed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = numeric_table(n_rows=100)
    predictor = make_predictor(frame)
    monkeypatch.setattr(network, "BLOCK_UNITS", 8 * 7)
    model = served(predictor, frame)
    np.testing.assert_allclose(
        model.probabilities_of(frame), predictor.probabilities(frame), rtol=0, atol=1e-6
    )


def test_cells_are_coded_as_the_encoder_codes_a_table() -> None:
    frame = mixed_table(200)
    rows = rows_of(frame)
    rows += [
        {"age": None, "city": "Atlantis", "income": None, "member": None},
        {"age": 1e9, "city": "", "income": -1, "member": "True"},
        {"age": 3, "city": "NA", "income": 2, "member": False},
        {"age": 3, "city": 7, "income": 2, "member": 1.0},
    ]
    model = served(make_predictor(frame), frame)
    cells = read_cells(model.columns, model.columns.transposed(rows))
    names = list(rows[0])
    frame = pd.DataFrame(
        {name: pd.Series([row[name] for row in rows], dtype=object) for name in names}
    )
    np.testing.assert_array_equal(
        model.encoder.encode(cells.numbers, cells.texts), model.encoder.transform(frame)
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda card: card["sample"]["probabilities"][3].reverse(), "must give the probabilities"),
        (lambda card: card["sample"]["probabilities"].pop(), "must give the probabilities"),
        (lambda card: card["sample"]["labels"].insert(0, "no"), "must give the labels"),
        (lambda card: card.pop("sample"), "must carry a sample"),
        (lambda card: card["sample"].update(rows=[]), "must carry a sample"),
    ],
)
def test_a_model_that_does_not_give_its_recorded_answers_is_found_out(
    change: Any, reason: str
) -> None:
    frame = mixed_table()
    predictor = make_predictor(frame, seed=3)
    card = make_card(predictor, frame)
    ServedModel.of(RegisteredModel("mlp", 1, "run", predictor, card)).check_sample()
    change(card)
    with pytest.raises(TrackingError, match=reason):
        ServedModel.of(RegisteredModel("mlp", 1, "run", predictor, card)).check_sample()


def test_a_card_of_other_columns_is_found_out() -> None:
    frame = mixed_table()
    predictor = make_predictor(frame)
    registered: Any = SimpleNamespace(
        name="mlp", version=1, run_id="r", predictor=predictor, card={"columns": {"age": {}}}
    )
    with pytest.raises(TrackingError, match="must describe the columns"):
        ServedModel.of(registered)


def test_a_model_of_release_0_1_answers_as_it_did() -> None:
    """Its folder was written by that release: preprocessing of format 1."""
    predictor, card = pyfunc.read(Path(__file__).parent / "model_of_0_1")
    model = ServedModel.of(RegisteredModel("mlp", 1, "run", predictor, card))
    model.check_sample()
    rows = pd.DataFrame(card["sample"]["rows"])
    np.testing.assert_allclose(
        predictor.probabilities(rows), card["sample"]["probabilities"], rtol=0, atol=1e-5
    )
    assert model.columns.numeric == ("age", "income")
    assert model.columns.categorical == ("city", "member", "code", "gear")
