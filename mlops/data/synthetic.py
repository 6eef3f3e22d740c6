"""Generated tables of any size and difficulty, and writing a table to a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mlops.errors import InputError, TableError
from mlops.files import exists, local_copy, replacing

TARGET = "target"
FEWEST_ROWS_OF_A_CLASS = 5
BLOCK_ROWS = 2**14


@dataclass(frozen=True)
class SyntheticSpec:
    """What to generate.

    Attributes:
        n_samples: Number of rows.
        n_features: Number of feature columns.
        n_classes: Number of classes.
        informative: Share of the features that carry the classes. Half of the others are linear
            combinations of these, the rest is noise.
        class_balance: Share of each class, adding up to 1; equal shares by default.
        label_noise: Share of the rows whose label is drawn at random.
        class_separation: Distance of the classes; below 1 is harder.
        seed: The same specification gives the same table.
    """

    n_samples: int = 1000
    n_features: int = 20
    n_classes: int = 2
    informative: float = 0.5
    class_balance: Sequence[float] | None = None
    label_noise: float = 0.01
    class_separation: float = 1.0
    seed: int = 0

    @property
    def n_informative(self) -> int:
        """Number of features that carry the classes, at least one."""
        return max(1, round(self.informative * self.n_features))

    def describe(self) -> str:
        """Returns the specification as text: `synthetic:n_samples=1000,...`."""
        settings = {key: value for key, value in asdict(self).items() if value is not None}
        return "synthetic:" + ",".join(f"{key}={value}" for key, value in settings.items())


def make_table(spec: SyntheticSpec) -> pd.DataFrame:
    """Generates a classification table with scikit-learn's `make_classification`.

    Every class is a mixture of Gaussian clusters at corners of a hypercube (Guyon, "Design of
    experiments of the NIPS 2003 variable selection benchmark", 2003).

    Returns:
        Columns `feature_0` ... of float32, and `target` of int64.

    Raises:
        InputError: The specification cannot be met; one line a problem.
    """
    problems = _problems(spec)
    if problems:
        raise InputError(problems)
    from sklearn.datasets import make_classification

    two_clusters_fit = 2 * spec.n_classes <= 2**spec.n_informative
    values, labels = make_classification(
        n_samples=spec.n_samples,
        n_features=spec.n_features,
        n_informative=spec.n_informative,
        n_redundant=(spec.n_features - spec.n_informative) // 2,
        n_classes=spec.n_classes,
        n_clusters_per_class=2 if two_clusters_fit else 1,
        weights=None if spec.class_balance is None else list(spec.class_balance),
        flip_y=spec.label_noise,
        class_sep=spec.class_separation,
        random_state=spec.seed,
        shuffle=False,
    )
    return _shuffled(values, labels, spec.seed)


def _shuffled(values: np.ndarray, labels: np.ndarray, seed: int) -> pd.DataFrame:
    """Permutes rows and columns into a frame of float32.

    `make_classification` can permute too, but it then holds the table three times in float64.
    Blocks of rows are written column by column, which is how a frame keeps them.
    """
    generator = np.random.default_rng(seed)
    rows = generator.permutation(len(values))
    columns = generator.permutation(values.shape[1])
    shuffled = np.empty(values.shape[::-1], dtype=np.float32)
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        shuffled[:, start : start + len(block)] = values[block].T[columns]
    names = [f"feature_{i}" for i in range(len(columns))]
    frame = pd.DataFrame(shuffled.T, columns=names, copy=False)
    frame[TARGET] = labels[rows].astype(np.int64)
    return frame


def check_output(path: str, *, overwrite: bool) -> None:
    """Checks that a generated table may be written to a file.

    Args:
        path: The file, or its URI.
        overwrite: Whether it may take the place of a file that is no generated table.

    Raises:
        TableError: It may not.
    """
    from mlops.data.files.paths import readable

    with readable(path):
        if overwrite or not exists(path) or _is_generated(path):
            return
    raise TableError(
        f"output must be a new file or an earlier generated table, got `{path}`, which exists and "
        "is neither; choose another name or say --overwrite"
    )


def _is_generated(path: str) -> bool:
    """Tells by its columns whether a file is a generated table."""
    import pyarrow as pa
    from pyarrow import parquet

    with local_copy(path) as file:
        if not file.is_file():
            return False
        try:
            if file.suffix.lower() == ".parquet":
                names = parquet.read_schema(file).names
            else:
                with file.open(encoding="utf-8") as lines:
                    names = lines.readline().rstrip("\r\n").split(",")
        except (pa.ArrowInvalid, UnicodeDecodeError):
            return False
    return len(names) > 1 and names == [*(f"feature_{i}" for i in range(len(names) - 1)), TARGET]


def write_table(frame: pd.DataFrame, path: str | Path) -> None:
    """Writes a table as `.csv` or `.parquet`, as the ending says.

    A file of that name is replaced in one step: a reader sees the old table or the new one, and an
    interrupted write leaves the old one. Missing folders are made.

    Raises:
        TableError: The ending is unknown or the file cannot be written.
    """
    ending = Path(path).suffix.lower()
    if ending not in (".csv", ".parquet"):
        raise TableError(f"a table must end in .csv or .parquet, got `{path}`; rename it")
    with replacing(path) as unfinished:
        if ending == ".csv":
            frame.to_csv(unfinished, index=False)
        else:
            frame.to_parquet(unfinished, index=False)


def _problems(spec: SyntheticSpec) -> list[str]:
    rules = [
        (spec.n_samples >= 1, f"`n_samples` must be at least 1, got {spec.n_samples}"),
        (spec.n_features >= 1, f"`n_features` must be at least 1, got {spec.n_features}"),
        (
            spec.n_classes >= 2,
            (
                f"`n_classes` must be at least 2, got {spec.n_classes}; one class leaves nothing "
                "to learn"
            ),
        ),
        (
            0 < spec.informative <= 1,
            (
                "`informative` is a share of the features, above 0 and at most 1, got "
                f"{spec.informative}"
            ),
        ),
        (
            0 <= spec.label_noise <= 1,
            f"`label_noise` is a share of the rows, from 0 to 1, got {spec.label_noise}",
        ),
        (
            0 <= spec.class_separation < np.inf,
            f"`class_separation` must be at least 0 and finite, got {spec.class_separation}",
        ),
        (
            0 <= spec.seed < 2**32,
            f"`seed` must be from 0 to 4294967295 (2**32 - 1), got {spec.seed}",
        ),
    ]
    return [problem for holds, problem in rules if not holds] or _size_problems(spec)


def _size_problems(spec: SyntheticSpec) -> list[str]:
    """Checks what depends on several settings, each of them sound by itself."""
    problems = []
    if spec.n_classes > 2**spec.n_informative:
        needed = (spec.n_classes - 1).bit_length()
        problems.append(
            "`n_classes` must be at most 2 to the number of informative features, got "
            f"{spec.n_classes} with {spec.n_informative} of {spec.n_features} features "
            f"informative; make {needed} features informative by raising `n_features` or "
            "`informative`"
        )
    balance = [1 / spec.n_classes] * spec.n_classes
    if spec.class_balance is not None:
        balance = list(spec.class_balance)
        shares = len(balance) == spec.n_classes and all(0 < share < 1 for share in balance)
        if not shares or abs(sum(balance) - 1) > 1e-6:
            return [
                *problems,
                f"`class_balance` must be {spec.n_classes} shares above 0 that add up to 1, got "
                f"{balance} (sum {sum(balance):g}); give one share for each class",
            ]
    if spec.n_samples * min(balance) < FEWEST_ROWS_OF_A_CLASS:
        needed = int(np.ceil(FEWEST_ROWS_OF_A_CLASS / min(balance)))
        problems.append(
            f"`n_samples` must be at least {needed}, {FEWEST_ROWS_OF_A_CLASS} rows for the "
            f"smallest class, got {spec.n_samples}; raise it or have fewer classes"
        )
    return problems
