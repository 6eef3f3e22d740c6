"""What the settings of several jobs are made of."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mlops.settings.wishes import Wish

_CLUSTER = re.compile(r"auto|local|[^/@\s]+:\d+")

# Settings that there were, and what is said to who still gives them.
GONE = {
    "resources.cpu_workers": "is gone since 0.2, as trials of two kinds of workers differ; leave "
    "it out, and set resources.gpus_per_worker to 0 to train on cores"
}

Auto = Literal["auto"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Share = Annotated[float, Field(gt=0, lt=1)]


def _of_cluster(value: str | None) -> str | None:
    if value is None or _CLUSTER.fullmatch(value):
        return value
    raise ValueError(
        f"must be auto or HOST:PORT, got {value!r}; leave it out to use this machine alone"
    )


def _of_cluster_or_job_server(value: str | None) -> str | None:
    if value is not None and re.fullmatch(r"https?://[^/@\s]+/?|ray://[^/@\s]+:\d+", value):
        return value
    if value is None or _CLUSTER.fullmatch(value):
        return value
    raise ValueError(
        f"must be auto, HOST:PORT, http://HOST:PORT or ray://HOST:PORT, got {value!r}; leave it "
        "out to use this machine alone"
    )


def _separator(value: str | None) -> str | None:
    value = {"tab": "\t", "\\t": "\t"}.get(value or "", value)
    if value is None or (len(value) == 1 and value.isascii() and value not in '"\r\n\0'):
        return value
    raise ValueError(f"must be one character, or tab, got {value!r}; it is found if left out")


def _encoding(value: str | None) -> str | None:
    try:
        "".encode(value or "utf-8")
    except (LookupError, UnicodeError) as error:
        raise ValueError(
            f"must be an encoding such as utf-8, latin-1 or utf-16, got {value!r}; it is found if "
            "left out"
        ) from error
    return value


Separator = Annotated[str | None, AfterValidator(_separator)]
Encoding = Annotated[str | None, AfterValidator(_encoding)]
ClusterAddress = Annotated[str | None, AfterValidator(_of_cluster)]
Address = Annotated[str | None, AfterValidator(_of_cluster_or_job_server)]


def shortened(value: str) -> str:
    """Quotes what a user gave, for a message of one line."""
    return repr(value if len(value) <= 60 else f"{value[:60]}...")


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean(cls, value: Any, info: ValidationInfo) -> Any:
        """Takes `true` for what it is, where pydantic takes it for 1."""
        wanted = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and wanted is not bool:
            raise ValueError(f"must be a number or text, got {value}")
        return value


class SyntheticSettings(Section):
    """A synthetic classification table, made by scikit-learn's make_classification."""

    n_samples: int = Field(1000, description="rows")
    n_features: int = Field(20, description="numeric columns feature_0, feature_1, ...")
    n_classes: int = Field(2, description="classes of the column target")
    informative: float = Field(0.5, description="share of the columns that carry information")
    class_balance: list[float] | None = Field(
        None, description="share of each class, summing to 1; equal shares by default"
    )
    label_noise: float = Field(0.01, description="share of rows given a random class")
    class_separation: float = Field(1.0, description="distance between the classes")
    seed: Seed = Field(0, description="seed of the table")


class DataSettings(Section):
    """Where the table comes from: a file, scikit-learn, OpenML, or else a synthetic one."""

    path: str | None = Field(
        None, description="your table: .csv, .tsv, .parquet, .jsonl, .xlsx, .csv.gz or .zip"
    )
    target: str | None = Field(None, description="the column to predict")
    test_path: str | None = Field(
        None, description="a test table of its own; else a share of the rows is split off"
    )
    sklearn: Literal["breast_cancer", "wine", "digits", "iris"] | None = Field(
        None, description="a table that comes with scikit-learn"
    )
    openml: PositiveInt | None = Field(None, description="id of an OpenML data set, e.g. 1590")
    strict: bool = Field(
        False,
        description="refuse a table about which there is something to note but what you asked for",
    )
    separator: Separator = Field(
        None, description="what separates the cells of a CSV file, or tab; found by default"
    )
    encoding: Encoding = Field(
        None, description="encoding of a CSV file, such as latin-1; found by default"
    )
    synthetic: SyntheticSettings = Field(
        SyntheticSettings(), description="the synthetic table, if none of these is given"
    )
    columns: dict[str, Wish] = Field(
        {},
        description="what columns are, by name or pattern, where the table does not show it: "
        "numeric, categorical or date; day_first or month_first of dates, decimal_comma or "
        "decimal_point of numbers; drop to leave them out, keep not to",
    )
    drop: list[str] = Field([], description="columns to leave out, by name or pattern: a,b*")
    keep: list[str] = Field([], description="columns not to leave out, though they seem useless")
    split_seed: Seed = Field(
        0, description="another one gives other parts; which part a row is in depends on its cells"
    )
    group: str | None = Field(
        None,
        description="a column, such as an id of a customer, whose equal values stay in one part; "
        "it is no feature, and with it parts stay the same when columns are added",
    )
    time: str | None = Field(
        None, description="a column of dates or numbers: the latest rows are the test part"
    )
    validation_fraction: Share = Field(0.16, description="share of the rows for validation")
    test_fraction: Share = Field(0.2, description="share of the rows for the test")

    @model_validator(mode="after")
    def _one_source(self) -> DataSettings:
        given = [name for name in ("path", "sklearn", "openml") if getattr(self, name) is not None]
        if self.target is not None and not given:
            raise ValueError(
                f"target must come with a table, got {self.target!r} alone; add --data.path FILE"
            )
        if len(given) > 1:
            raise ValueError(
                f"must name one source, got {' and '.join(given)}; leave all but one out"
            )
        if self.path is not None and self.target is None:
            raise ValueError("must name the column to predict, got none; add --data.target COLUMN")
        for name in ("separator", "encoding"):
            if getattr(self, name) is not None and self.path is None:
                raise ValueError(
                    f"{name} must come with a file, got {getattr(self, name)!r} alone; add "
                    "--data.path FILE"
                )
        if self.test_path is not None and self.path is None:
            raise ValueError(
                "test_path must come with a training table, got no path; add --data.path FILE"
            )
        return self

    @model_validator(mode="after")
    def _one_split(self) -> DataSettings:
        if self.group is not None and self.time is not None:
            raise ValueError(
                f"group and time must not both be given, got {shortened(self.group)} and "
                f"{shortened(self.time)}; leave one out"
            )
        shares = self.validation_fraction + self.test_fraction
        if shares >= 1:
            raise ValueError(
                "validation_fraction and test_fraction must leave rows to train on, got a sum of "
                f"{shares:g}; keep it below 1"
            )
        return self

    @property
    def wishes(self) -> dict[str, Wish]:
        """What is said of columns, by name or pattern."""
        kept: dict[str, Wish] = dict.fromkeys(self.keep, "keep")
        dropped: dict[str, Wish] = dict.fromkeys(self.drop, "drop")
        return {**self.columns, **kept, **dropped}


class ResourceSettings(Section):
    """What each worker gets; a worker trains one pack at a time."""

    workers: PositiveInt | Auto = Field(
        "auto",
        description="packs at a time; auto is one a core, or a GPU, as far as the work pays; "
        "of a cluster that grows name the most it may have, and machines that join get packs",
    )
    cpus_per_worker: PositiveFloat = Field(1.0, description="cores a worker")
    gpus_per_worker: Annotated[float, Field(ge=0, le=1)] | Auto = Field(
        "auto",
        description="GPUs a worker: 1, or a share such as 0.25, so that packs too small for a GPU "
        "share it; auto is 1 if there is one, else 0",
    )
    precision: Literal["float32", "tf32", "bf16"] = Field(
        "float32",
        description="of matrix products: float32 gives the same scores on any machine, nearly; "
        "tf32 is faster on a GPU, bf16 takes half the memory too; weights are float32",
    )


class TrackingSettings(Section):
    """Where the record is kept; the environment variable MLFLOW_TRACKING_URI wins."""

    uri: str | None = Field(
        None, description="MLflow store; by default sqlite:///mlflow.db, artifacts in ./mlruns"
    )
    experiment: str = Field("mlops-classification", description="MLflow experiment")
    model_name: str = Field("mlp", description="name in the model registry")

    @field_validator("experiment", "model_name")
    @classmethod
    def _a_name(cls, value: str, info: ValidationInfo) -> str:
        banned = "/:" if info.field_name == "model_name" else ""
        if not value.strip() or any(letter in value for letter in banned):
            rule = "must not be empty" + (" or have / or : in it" if banned else "")
            raise ValueError(f"{rule}, got {value!r}; choose another name")
        return value
