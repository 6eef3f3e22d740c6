"""Batch scoring: what is written is what the model says of the whole table, whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import strategies as st

from mlops.cluster.connection import Connection
from mlops.configuration.hyperparameters import Hyperparameters
from mlops.data.blocks import Block, open_table
from mlops.data.columns.features import FeatureEncoder
from mlops.data.sources import read_file
from mlops.errors import InputError, TableError, TrackingError
from mlops.nn.mlp import MLP
from mlops.nn.tasks.classification import Classification
from mlops.serving.batch import batch
from mlops.serving.batch.pools import RayWorkers, Threads, from_buffer, score_buffer, to_buffer
from mlops.serving.batch.scoring import BadRow, Scorer, free_names
from mlops.settings.sections import TrackingSettings
from mlops.tracking.models import registry
from mlops.tracking.models.model import log_model
from mlops.tracking.pyfunc import Predictor
from mlops.tracking.store.database import create_sqlite
from mlops.tracking.store.store import Store, open_store

ROOT = Path(__file__).parents[3]
NAMES = [f"{'predicted_' * n}{name}" for name in ("label", "probability_a") for n in range(4)]
# MLflow 3.17 on libraries newer than itself, and about its own type hints when first imported.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]


def make_rows(n_rows: int, seed: int = 0) -> pd.DataFrame:
    """Rows of every kind: numbers with gaps, whole numbers, text, booleans, and an id."""
    generator = np.random.default_rng(seed)
    size = generator.normal(size=n_rows)
    size[generator.random(n_rows) < 0.1] = np.nan
    return pd.DataFrame(
        {
            "id": [f"{i:05d}" for i in range(n_rows)],
            "size": size,
            "count": generator.integers(0, 50, n_rows),
            "colour": generator.choice(["red", "green", "1"], n_rows),
            "new": generator.choice([True, False], n_rows),
        }
    )


FEATURES = ["size", "count", "colour", "new"]


def make_predictor(classes: list[Any], hidden: tuple[int, ...] = (8, 4)) -> Predictor:
    """A model with random weights, large enough to be sure of itself now and then."""
    encoder = FeatureEncoder.fit(make_rows(200, seed=1)[FEATURES])
    hyperparameters = Hyperparameters(hidden_dims=hidden, dropout=0.0)
    mlp = MLP.of(hyperparameters, encoder.width, len(classes))
    mlp.reset(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for layer in mlp.linears():
            layer.weight *= 3.0
    return Predictor(mlp.eval(), encoder, Classification(classes), "y", hyperparameters)


def register(store: Store, predictor: Predictor, alias: str) -> int:
    run_id = store.client.create_run(store.experiment_id).info.run_id
    model = log_model(
        store,
        run_id,
        predictor,
        example=make_rows(5)[FEATURES],
    )
    return registry.register(store, model, alias=alias)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with a registry: version 1 is the candidate, version 2 the champion."""
    path = tmp_path_factory.mktemp("scoring")
    before = Path.cwd()
    os.chdir(path)
    create_sqlite(path / "mlflow.db")
    store = open_store(f"sqlite:///{path}/mlflow.db")
    register(store, make_predictor([0, 1, 2]), "candidate")
    register(store, make_predictor(["no", "yes"]), "champion")
    yield path
    os.chdir(before)


@pytest.fixture
def in_folder(clean_environment: None, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    monkeypatch.chdir(folder)
    return folder


def write(frame: pd.DataFrame, path: Path) -> Path:
    frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path)
    return path


def run(given: Path, output: Path, **options: Any) -> dict[str, Any]:
    job = batch.Job(str(given), str(output), **{"workers": 0, **options})
    return batch.run(job, TrackingSettings())


def assert_scored(given: Path, output: Path, predictor: Predictor) -> None:
    """Checks an output against the model's word on the whole table."""
    table, expected = read_file(given).frame, predictor.predict(read_file(given).frame)
    is_csv = output.suffix == ".csv"
    scored = pd.read_csv(output) if is_csv else pd.read_parquet(output)
    assert list(scored) == [*table, *expected]
    assert scored["label"].to_list() == expected["label"].to_list()
    names = list(expected)[1:]
    np.testing.assert_allclose(scored[names], expected[names], rtol=0, atol=1e-6)
    given_rows = pd.read_csv(given) if given.suffix == ".csv" else pd.read_parquet(given)
    cells = scored[FEATURES].astype(object).map(str).replace("", "nan")
    pd.testing.assert_frame_equal(cells, given_rows[FEATURES].astype(object).map(str))
    texts = pd.read_csv(output, dtype=str) if is_csv else pd.read_parquet(output)
    assert texts["id"].to_list() == make_rows(len(table))["id"].to_list()


@pytest.mark.parametrize("classes", [["no", "yes"], [0, 1, 2], [False, True], [1, 2.5]])
def test_a_block_is_scored_as_the_model_scores_it(classes: list[Any]) -> None:
    predictor, rows = make_predictor(classes), make_rows(500)
    scorer = Scorer(predictor)
    scored = scorer(pa.Table.from_pandas(rows))
    expected = predictor.predict(rows)
    assert isinstance(scored, pa.Table)
    assert scored.schema == scorer.schema
    found = scored.to_pandas()
    assert list(found) == list(expected)
    assert found["label"].to_list() == expected["label"].to_list()
    assert len(set(found["label"])) > 1
    np.testing.assert_allclose(found.iloc[:, 1:], expected.iloc[:, 1:], rtol=0, atol=1e-6)


@pytest.mark.parametrize("bad", [0, 1, 63, 64, 99])
@pytest.mark.parametrize("column", ["count", "colour"])
def test_the_first_bad_row_of_a_block_is_found(bad: int, column: str) -> None:
    rows = make_rows(100)
    rows[column] = [[1] if row >= bad and row % 7 == bad % 7 else None for row in range(100)]
    found = Scorer(make_predictor(["no", "yes"]))(pa.Table.from_pandas(rows))
    assert isinstance(found, BadRow)
    assert found.row == bad
    assert len(found.problems) == 1
    assert f"column `{column}` must hold" in found.problems[0]


def test_a_block_travels_in_a_buffer_and_no_more_than_the_block() -> None:
    table = pa.Table.from_pandas(make_rows(1000))
    part = table.slice(100, 10)
    buffer = to_buffer(part)
    assert from_buffer(buffer).equals(part)
    assert buffer.size < to_buffer(table).size / 20
    scorer = Scorer(make_predictor(["no", "yes"]))
    scored = score_buffer(scorer, buffer)
    assert isinstance(scored, pa.Buffer)
    assert from_buffer(scored).equals(scorer(part))


class _Echo(Threads):
    """Returns what it is given."""

    def __init__(self, ahead: int) -> None:
        self.ahead = ahead

    def submit(self, rows: pa.Table) -> Any:
        return rows

    def collect(self, handle: Any) -> Any:
        return handle


@pytest.mark.parametrize("ahead", [0, 1, 3, 100])
def test_blocks_keep_their_order_and_few_are_under_way(ahead: int) -> None:
    read, written = 0, 0

    def blocks() -> Iterator[Block]:
        nonlocal read
        for i in range(20):
            read += 1
            assert read - written <= ahead + 1
            yield Block(i, pa.table({"i": [i]}), i / 20)

    for block, rows in batch.in_order(blocks(), _Echo(ahead), ["i"]):
        assert isinstance(rows, pa.Table)
        assert block.first_row == rows["i"][0].as_py() == written
        written += 1
    assert written == 20


@pytest.mark.parametrize("source", ["table.parquet", "table.csv"])
@pytest.mark.parametrize("target", ["scored.parquet", "scored.csv"])
def test_a_table_is_scored(in_folder: Path, tmp_path: Path, source: str, target: str) -> None:
    given, output = write(make_rows(1000), tmp_path / source), tmp_path / target
    result = run(given, output, block_rows=64)
    assert_scored(given, output, make_predictor(["no", "yes"]))
    assert result["output"] == str(output)
    assert result["rows"] == sum(result["labels"].values()) == 1000
    assert set(result["labels"]) == {"no", "yes"}
    assert (result["model"]["name"], result["model"]["version"]) == ("mlp", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([source, target])
    if target.endswith(".parquet"):
        stamp = pq.read_schema(output).metadata[b"model"]
        assert json.loads(stamp) == result["model"]


@pytest.mark.parametrize(
    ("version", "number", "classes"),
    [("candidate", 1, [0, 1, 2]), (1, 1, [0, 1, 2]), (2, 2, ["no", "yes"])],
)
def test_the_model_is_chosen_by_alias_or_version(
    in_folder: Path, tmp_path: Path, version: int | str, number: int, classes: list[Any]
) -> None:
    given, output = write(make_rows(50), tmp_path / "t.parquet"), tmp_path / "s.parquet"
    assert run(given, output, version=version)["model"]["version"] == number
    assert_scored(given, output, make_predictor(classes))


def test_there_is_no_other_model_than_the_one_named(in_folder: Path, tmp_path: Path) -> None:
    given, output = write(make_rows(5), tmp_path / "t.parquet"), tmp_path / "s.parquet"
    with pytest.raises(TrackingError, match="alias `champion` of model `other` must be in"):
        run(given, output, model_name="other")
    with pytest.raises(TrackingError, match="version `9` of model `mlp` must be in"):
        run(given, output, version=9)
    assert not output.exists()


def test_predictions_alone(in_folder: Path, tmp_path: Path) -> None:
    rows = make_rows(50).rename(columns={"id": "label"})
    given, output = write(rows, tmp_path / "t.parquet"), tmp_path / "s.parquet"
    done = run(given, output, keep_columns=False)
    assert done["renamed"] == {}
    assert list(pd.read_parquet(output)) == ["label", "probability_no", "probability_yes"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_predictions_get_names_that_the_table_leaves_free(
    in_folder: Path, tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A table with a column `label` is scored, and what was written once more."""
    rows = make_rows(50).rename(columns={"id": "label"})
    given = write(rows, tmp_path / f"t.{kind}")
    once, twice = tmp_path / f"once.{kind}", tmp_path / f"twice.{kind}"
    done = run(given, once)
    assert done["renamed"] == {"label": "predicted_label"}
    assert "the predictions are in 'predicted_label'" in capfd.readouterr().err
    written = read_file(once).frame
    added = ["predicted_label", "probability_no", "probability_yes"]
    assert list(written) == [*rows, *added]
    assert list(map(str, written["label"])) == list(map(str, read_file(given).frame["label"]))
    done = run(once, twice)
    assert done["renamed"] == {
        "label": "predicted_predicted_label",
        "probability_no": "predicted_probability_no",
        "probability_yes": "predicted_probability_yes",
    }
    again = read_file(twice).frame
    assert list(again) == [*written, *done["renamed"].values()]
    for old, new in zip(added, done["renamed"].values(), strict=True):
        assert list(again[old]) == list(written[old])
        assert list(again[new]) == list(written[old])
    assert done["labels"] == written["predicted_label"].value_counts().to_dict()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("block_rows", [7, 100])
def test_what_is_odd_about_the_rows_is_counted_and_told(
    in_folder: Path, tmp_path: Path, kind: str, block_rows: int, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = make_rows(50)
    rows.loc[[3, 40], "colour"] = ["blue", "purple"]
    rows.loc[[1, 20, 30], "colour"] = None
    rows.loc[45, "size"] = 1e9
    given, output = write(rows, tmp_path / f"t.{kind}"), tmp_path / "s.parquet"
    done = run(given, output, block_rows=block_rows)
    assert done["notes"] == [
        {"code": "new_gap", "column": "colour", "cells": 3},
        {"code": "unknown_level", "column": "colour", "cells": 2},
        {"code": "far_outside", "column": "size", "cells": 1},
    ]
    assert capfd.readouterr().err.splitlines()[-4:] == [
        f"{given}: notes",
        "  - `colour`: 3 cell(s) without a value, of which training had none",
        "  - `colour`: 2 cell(s) of categories that training has not seen",
        "  - `size`: 1 number(s) far from those of training",
    ]
    assert run(write(make_rows(50), tmp_path / f"u.{kind}"), output, overwrite=True)["notes"] == []


@hypothesis.given(
    st.lists(st.sampled_from(NAMES), unique=True), st.lists(st.sampled_from(NAMES), unique=True)
)
def test_a_free_name_is_found_for_each_whatever_is_taken(
    names: list[str], taken: list[str]
) -> None:
    free = free_names(names, taken)
    assert list(free) == names
    assert len(set(free.values())) == len(names)
    assert not set(free.values()) & set(taken)
    assert all(new == name for name, new in free.items() if name not in taken)


def test_a_table_without_rows_is_scored_too(in_folder: Path, tmp_path: Path) -> None:
    given, output = write(make_rows(0), tmp_path / "t.parquet"), tmp_path / "s.parquet"
    assert run(given, output)["rows"] == 0
    assert pd.read_parquet(output).shape == (0, 8)


@pytest.mark.parametrize("source", ["t.parquet", "t.csv"])
def test_a_cell_that_is_no_number_is_a_gap_and_counted(
    in_folder: Path, tmp_path: Path, source: str
) -> None:
    rows = make_rows(100)
    rows["count"] = rows["count"].astype(str)
    rows.loc[[41, 77], "count"] = ["many", "few"]
    rows.loc[3, "size"] = float("inf")
    given, output = write(rows, tmp_path / source), tmp_path / "s.parquet"
    done = run(given, output, block_rows=8)
    assert done["notes"] == [
        {"code": "odd_cell", "column": "count", "cells": 2},
        {"code": "odd_cell", "column": "size", "cells": 1},
    ]
    gaps = rows.assign(count=rows["count"].replace({"many": "", "few": ""}))
    gaps.loc[3, "size"] = None
    again = tmp_path / "again.parquet"
    assert run(write(gaps, tmp_path / f"gaps{Path(source).suffix}"), again)["notes"] == []
    names = ["label", "probability_no", "probability_yes"]
    found, expected = (pd.read_parquet(path)[names] for path in (output, again))
    pd.testing.assert_frame_equal(found, expected)


def test_a_bad_cell_is_named_by_row_and_column(in_folder: Path, tmp_path: Path) -> None:
    rows = make_rows(100)
    rows["count"] = [[row] if row in (41, 77) else None for row in range(100)]
    given, output = write(rows, tmp_path / "t.parquet"), tmp_path / "s.parquet"
    output.write_text("the old one")
    with pytest.raises(TableError) as caught:
        run(given, output, overwrite=True, block_rows=8)
    (line,) = caught.value.problems
    assert line.startswith(
        f"`{given}`, row 42 (the first is 1): column `count` must hold one value"
    )
    assert output.read_text() == "the old one"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_missing_column_is_named(in_folder: Path, tmp_path: Path) -> None:
    given = write(make_rows(5).drop(columns="new"), tmp_path / "t.parquet")
    with pytest.raises(TableError, match="'new' absent"):
        run(given, tmp_path / "s.parquet")


def test_an_output_is_not_overwritten_by_chance(in_folder: Path, tmp_path: Path) -> None:
    given = write(make_rows(5), tmp_path / "t.parquet")
    output = tmp_path / "s.parquet"
    run(given, output)
    with pytest.raises(InputError, match=r"must be a new file.*--overwrite"):
        run(given, output)
    run(given, output, overwrite=True)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("t.parquet", "another file than input"),
        ("link.parquet", "another file than input"),
        ("s.txt", "must end in .csv or .parquet"),
        ("folder.csv", "must be a file, got the folder"),
    ],
)
def test_an_output_that_cannot_be(tmp_path: Path, name: str, reason: str) -> None:
    given = write(make_rows(5), tmp_path / "t.parquet")
    (tmp_path / "link.parquet").symlink_to(given)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=reason):
        run(given, tmp_path / name, overwrite=True)


def test_ray_is_for_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection()
    for workers in ("auto", 0):
        pool = batch.open_pool(batch.Job("", "", workers=workers), connection)
        assert isinstance(pool, Threads)
        pool.close()
    nowhere = "address: must be that of a running cluster, got 127.0.0.1:"
    with pytest.raises(InputError, match=nowhere):
        batch.open_pool(batch.Job("", ""), Connection("127.0.0.1:1"))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(InputError, match=nowhere):
        batch.open_pool(batch.Job("", ""), Connection())


@pytest.mark.slow
@pytest.mark.parametrize("source", ["t.parquet", "t.csv"])
def test_ray_gives_what_one_process_gives(
    in_folder: Path, ray_cluster: None, tmp_path: Path, source: str
) -> None:
    given = write(make_rows(2000), tmp_path / source)
    result = run(given, tmp_path / "ray.parquet", workers=2, block_rows=37)
    here = run(given, tmp_path / "here.parquet", block_rows=37)
    assert result["rows"] == here["rows"] == 2000
    assert pq.read_table(tmp_path / "ray.parquet").equals(pq.read_table(tmp_path / "here.parquet"))


@pytest.mark.slow
def test_a_bad_cell_is_named_by_ray_too(in_folder: Path, ray_cluster: None, tmp_path: Path) -> None:
    rows = make_rows(500)
    rows["size"] = [[1.5] if row in (321, 444) else None for row in range(500)]
    given = write(rows, tmp_path / "t.parquet")
    with pytest.raises(TableError, match=r"row 322 \(the first is 1\): column `size`"):
        run(given, tmp_path / "s.parquet", workers=2, block_rows=10)
    assert list(tmp_path.iterdir()) == [given]


@pytest.mark.slow
def test_a_block_whose_worker_dies_is_scored_by_another(ray_cluster: None, tmp_path: Path) -> None:
    import ray

    scorer = Scorer(make_predictor(["no", "yes"]))
    given = write(make_rows(2000), tmp_path / "t.parquet")
    blocks = open_table(given, scorer.columns, block_rows=10).blocks()
    scored = []
    for block, predictions in batch.predictions("t", scorer, blocks, RayWorkers(2, 1.0)):
        scored.append(predictions)
        if block.first_row in (500, 1000):
            workers = ray.get([ray.remote(lambda: os.getpid()).remote() for _ in range(4)])
            for pid in set(workers):
                os.kill(pid, signal.SIGKILL)
    (whole,) = open_table(given, scorer.columns, only=True).blocks()
    assert pa.concat_tables(scored).combine_chunks().equals(scorer(whole.rows))


@pytest.fixture
def environment(in_folder: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
    return {**kept, "PYTHONPATH": str(ROOT)}


def command(*flags: object) -> list[str]:
    return [sys.executable, "-m", "ray_jobs.predict", *map(str, flags)]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_job_answers_with_one_json_line(environment: dict[str, str], tmp_path: Path) -> None:
    given, output = write(make_rows(300), tmp_path / "t.parquet"), tmp_path / "s.parquet"
    words = command("--input", given, "--output", output, "--workers", 2, "--block_rows", 50)
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["rows"] == 300
    assert result["model"]["version"] == 2
    assert_scored(given, output, make_predictor(["no", "yes"]))
    lines = done.stderr.splitlines()
    assert lines[0] == "starting Ray"
    assert lines[1] == f"scoring {given} with mlp version 2"
    assert lines[-1].startswith("300 of 300 rows · ")
    assert not any("Warning" in line or "Traceback" in line for line in lines)

    again = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert again.returncode == 2
    assert again.stdout == ""
    assert again.stderr.startswith("error: output must be a new file")
    assert "Traceback" not in again.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_bad_cell_ends_the_job_with_2(environment: dict[str, str], tmp_path: Path) -> None:
    rows = make_rows(300)
    rows["size"] = [[1.5] if row == 123 else None for row in range(300)]
    given, output = write(rows, tmp_path / "t.parquet"), tmp_path / "s.parquet"
    words = command("--input", given, "--output", output)
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith(f"error: `{given}`, row 124 (the first is 1)")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [given]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_job_leaves_no_output(
    environment: dict[str, str], tmp_path: Path, by: signal.Signals
) -> None:
    given, output = write(make_rows(200_000), tmp_path / "t.parquet"), tmp_path / "s.parquet"
    words = command("--input", given, "--output", output, "--block_rows", 10)
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 100
        while not list(tmp_path.glob(".writing-*/*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(by)
        assert process.stderr is not None
        rest = process.stderr.read()
    assert not output.exists()
    assert "Traceback" not in rest
    if by != signal.SIGKILL:
        assert process.returncode == 130
        assert rest.splitlines()[-1] == "interrupted; nothing was written"
        assert list(tmp_path.iterdir()) == [given]
