"""Who competes: our own job, and others on the same rows, split and cores.

Each predicts the validation part after it has learned from the training part, which is what choices
are made by, and the test part after it has learned from both.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from benchmarks import process_tree
from benchmarks.contenders import environment
from benchmarks.quality.tables import Table
from mlops.data.table import Part, Parts

MOST_LEVELS = 250  # of scikit-learn's gradient boosting: 255


@dataclass(frozen=True)
class Outcome:
    """What a contender says of a table: [N, C] for each part, and its wall seconds."""

    validation: np.ndarray
    test: np.ndarray
    seconds: float


class Contender(Protocol):
    """One who competes; `name` says all that its results depend on."""

    name: str

    def compete(self, table: Table, folder: Path, split: int, parts: Parts) -> Outcome: ...


@dataclass(frozen=True)
class Ours:
    """The job tune in a process of its own, with flags."""

    name: str
    flags: Sequence[str] = ()

    def compete(self, table: Table, folder: Path, split: int, parts: Parts) -> Outcome:
        from mlops.tracking.models.registry import load_version
        from mlops.tracking.store.store import open_registry

        job = [sys.executable, "-m", "ray_jobs.tune", "--seed", str(split), *self.flags]
        job += table.flags(folder.resolve(), split)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            started = time.monotonic()
            done = process_tree.measure(job, Path(scratch), environment(), pss_interval=60.0)
            seconds = time.monotonic() - started
            if done.exit_code != 0 or done.result is None:
                sys.stderr.write((Path(scratch) / "stderr.txt").read_text()[-4000:])
                raise SystemExit(f"{' '.join(job)} ended with exit status {done.exit_code}")
            model = done.result["model"]
            registry = open_registry(f"sqlite:///{scratch}/mlflow.db")
            predictor = load_version(registry, model["name"], model["version"]).predictor
        used = [column.name for column in predictor.encoder.columns]
        said = [
            predictor.probabilities(part.frame[used]) for part in (parts.validation, parts.test)
        ]
        return Outcome(said[0], said[1], seconds)


Fit = Callable[[pd.DataFrame, np.ndarray, int], Any]
"""Rows, codes and a seed -> a fitted classifier of scikit-learn's kind."""


@dataclass(frozen=True)
class Peer:
    """Another library's classifier, as it is by default.

    Attributes:
        name: What it is, with its version.
        fit: Makes and fits it.
        prepare: Makes a frame that it takes of one of numbers, categories and times.
    """

    name: str
    fit: Fit
    prepare: Callable[[pd.DataFrame], pd.DataFrame]

    def compete(self, table: Table, folder: Path, split: int, parts: Parts) -> Outcome:
        started = time.monotonic()
        whole = self.prepare(parts.train.table)
        rest = whole
        if parts.test.table is not parts.train.table:
            # Categories of two files differ; as objects they join.
            both = [_objects(frame) for frame in (parts.train.table, parts.test.table)]
            prepared = self.prepare(pd.concat(both, ignore_index=True))
            whole, rest = prepared.iloc[: len(whole)], prepared.iloc[len(whole) :]

        def said(learned: Sequence[Part], asked: Part, frame: pd.DataFrame) -> np.ndarray:
            rows = np.concatenate([part.rows for part in learned])
            codes = np.concatenate([part.target for part in learned])
            model = self.fit(whole.iloc[rows].reset_index(drop=True), codes, split)
            found = np.zeros((len(asked), len(parts.classes)))
            known = np.asarray(model.classes_, dtype=np.int64).ravel()
            found[:, known] = model.predict_proba(frame.iloc[asked.rows].reset_index(drop=True))
            return found

        validation = said([parts.train], parts.validation, whole)
        test = said([parts.train, parts.validation], parts.test, rest)
        return Outcome(validation, test, time.monotonic() - started)


def _objects(frame: pd.DataFrame) -> pd.DataFrame:
    categories = frame.select_dtypes("category")
    return frame.assign(**{name: column.astype(object) for name, column in categories.items()})


def _plain(frame: pd.DataFrame, category: Callable[[pd.Series], pd.Series]) -> pd.DataFrame:
    """Makes times seconds, numbers float64, and of all else what a library takes."""

    def of(column: pd.Series) -> pd.Series:
        if pd.api.types.is_datetime64_any_dtype(column.dtype):
            seconds = column.astype("datetime64[s]").astype(np.int64).astype(np.float64)
            return seconds.where(column.notna(), np.nan)
        if pd.api.types.is_numeric_dtype(column.dtype):
            return column.astype(np.float64)
        return category(column)

    return pd.DataFrame({name: of(frame[name]) for name in frame})


def _frequent(column: pd.Series) -> pd.Series:
    """Returns categories, the rarest of too many as one."""
    text = column.astype(object)
    frequent = text.value_counts().index[:MOST_LEVELS]
    return text.where(text.isna() | text.isin(frequent), "other").astype("category")


def _text(column: pd.Series) -> pd.Series:
    return column.astype(object).where(column.notna(), "(none)").astype(str)


def _categories(column: pd.Series) -> pd.Series:
    return _text(column).astype("category")


def _without_gaps(frame: pd.DataFrame) -> pd.DataFrame:
    """Makes what pytabkit's networks take: no gaps among numbers."""
    made = _plain(frame, _categories)
    numbers = made.select_dtypes("float64")
    return made.assign(**numbers.fillna(numbers.median()).fillna(0.0))


def _gradient_boosting(rows: pd.DataFrame, codes: np.ndarray, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=seed)
    return model.fit(rows, codes)


def _catboost(rows: pd.DataFrame, codes: np.ndarray, seed: int) -> Any:
    from catboost import CatBoostClassifier

    texts = [name for name in rows if not pd.api.types.is_numeric_dtype(rows[name].dtype)]
    model = CatBoostClassifier(verbose=0, random_seed=seed, allow_writing_files=False)
    return model.fit(rows, codes, cat_features=texts)


def _realmlp(rows: pd.DataFrame, codes: np.ndarray, seed: int) -> Any:
    from pytabkit import RealMLP_TD_Classifier

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    model = RealMLP_TD_Classifier(device="cpu", random_state=seed, verbosity=0)
    return model.fit(rows, codes)


def contenders(ours: Sequence[str]) -> dict[str, Contender]:
    """Returns who may compete, by a short name.

    Args:
        ours: Flags of the job tune.
    """
    told = " ".join(ours) or "defaults"
    return {
        "ours": Ours(f"ours ({told})", tuple(ours)),
        "hgb": Peer(
            f"HistGradientBoosting {version('scikit-learn')}",
            _gradient_boosting,
            lambda frame: _plain(frame, _frequent),
        ),
        "catboost": Peer(
            f"CatBoost {_version('catboost')}", _catboost, lambda frame: _plain(frame, _text)
        ),
        "realmlp": Peer(f"RealMLP-TD {_version('pytabkit')}", _realmlp, _without_gaps),
    }


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "(not installed)"
