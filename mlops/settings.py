"""The settings of every job: typed and frozen; `mlops.flags` reads them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mlops.errors import SettingsError
from mlops.hyperparameters import NAMES, Hyperparameters, problem_with
from mlops.space import REALS, SearchSpace, number

Auto = Literal["auto"]


Seed = Annotated[int, Field(ge=0, lt=2**32)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean(cls, value: Any, info: ValidationInfo) -> Any:
        """Takes `true` for what it is, where pydantic takes it for 1."""
        wanted = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and wanted is not bool:
            raise ValueError(f"must be a number or text, got {value}")
        return value


class SyntheticSettings(_Section):
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


class DataSettings(_Section):
    """Where the table comes from: a file, scikit-learn, OpenML, or else a synthetic one."""

    path: str | None = Field(None, description="your table, .csv or .parquet")
    target: str | None = Field(None, description="the column to predict")
    test_path: str | None = Field(None, description="a test table of its own; else 20% is split")
    sklearn: Literal["breast_cancer", "wine", "digits", "iris"] | None = Field(
        None, description="a table that comes with scikit-learn"
    )
    openml: PositiveInt | None = Field(None, description="id of an OpenML data set, e.g. 1590")
    synthetic: SyntheticSettings = Field(
        SyntheticSettings(), description="the synthetic table, if none of these is given"
    )

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
        if self.test_path is not None and self.path is None:
            raise ValueError(
                "test_path must come with a training table, got no path; add --data.path FILE"
            )
        return self


class ResourceSettings(_Section):
    """What each worker gets; a worker trains one pack at a time."""

    workers: PositiveInt | Auto = Field(
        "auto", description="packs at a time; auto is one a core, or a GPU, as far as the work pays"
    )
    cpus_per_worker: PositiveFloat = Field(1.0, description="cores a worker")
    gpus_per_worker: NonNegativeFloat | Auto = Field(
        "auto", description="GPUs a worker, fractions allowed; auto is 1 if there is one, else 0"
    )


class TrackingSettings(_Section):
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


class SearchSettings(_Section):
    """How configurations are chosen."""

    algorithm: Literal["hyperopt", "optuna", "random"] = Field(
        "hyperopt", description="TPE by hyperopt or by optuna, or random"
    )
    initial_points: PositiveInt = Field(10, description="random trials before TPE starts")


class PruningSettings(_Section):
    """Successive halving within a pack: off unless eta is given."""

    eta: int | None = Field(
        None, ge=2, description="keep the best 1/eta of a pack at each rung; off by default"
    )
    min_epochs: PositiveInt = Field(5, description="the first rung, each next is eta times later")


class InitMlflowSettings(_Section):
    """Settings of the job init_mlflow."""

    tracking: TrackingSettings = Field(TrackingSettings(), description="the record")


class GenerateDataSettings(SyntheticSettings):
    """Settings of the job generate_data."""

    output: str = Field("data/synthetic.parquet", description="file to write, .parquet or .csv")
    tracking: TrackingSettings = Field(TrackingSettings(), description="the record")


class _Study(_Section):
    """What train and tune have in common."""

    data: DataSettings = Field(DataSettings(), description="the table")
    metric: Literal["val_accuracy", "val_f1", "val_loss"] = Field(
        "val_accuracy", description="what the best epoch and the best trial are best in"
    )
    seed: Seed = Field(0, description="seed of the split, the search and the training")
    study: str | None = Field(None, description="name of the study; by default job and time")
    resources: ResourceSettings = Field(ResourceSettings(), description="cores and GPUs")
    tracking: TrackingSettings = Field(TrackingSettings(), description="the record")


_DEFAULT = Hyperparameters()


class TrainSettings(_Study):
    """Settings of the job train."""

    hidden_dims: list[int] = Field(
        list(_DEFAULT.hidden_dims), description="width of each hidden layer"
    )
    learning_rate: float = Field(
        _DEFAULT.learning_rate,
        validation_alias=AliasChoices("lr", "learning_rate"),
        description="AdamW's step size",
    )
    batch_size: int = Field(_DEFAULT.batch_size, description="rows a step")
    epochs: int = Field(_DEFAULT.epochs, description="passes over the training part")
    dropout: float = Field(_DEFAULT.dropout, description="share of hidden units dropped a step")
    weight_decay: float = Field(_DEFAULT.weight_decay, description="AdamW's decoupled decay")
    label_smoothing: float = Field(
        _DEFAULT.label_smoothing, description="probability mass spread over all classes"
    )
    activation: str = Field(_DEFAULT.activation, description="relu, gelu, silu or tanh")

    @model_validator(mode="before")
    @classmethod
    def _short_name_wins(cls, values: Any) -> Any:
        """Lets the flag --lr win over learning_rate in the file."""
        if isinstance(values, dict) and "lr" in values:
            return {name: value for name, value in values.items() if name != "learning_rate"}
        return values

    @field_validator(*NAMES)
    @classmethod
    def _rule(cls, value: Any, info: ValidationInfo) -> Any:
        if problem := problem_with(str(info.field_name), value):
            raise ValueError(problem)
        return value

    @property
    def hyperparameters(self) -> Hyperparameters:
        """The one configuration to train."""
        return Hyperparameters.from_dict({name: getattr(self, name) for name in NAMES})


class TuneSettings(_Study):
    """Settings of the job tune."""

    max_evals: PositiveInt = Field(20, description="trials")
    epochs: int = Field(50, description="epochs of each trial, unless in the space")
    pack_size: PositiveInt | Auto = Field(
        "auto", description="trials a worker trains at once; 1 is one trial a worker"
    )
    space: dict[str, Any] = Field(
        {
            "hidden_dims": {"choice": [[32], [64], [64, 32], [128, 64], [256, 128]]},
            "batch_size": {"choice": [32, 64, 128, 256]},
            "learning_rate": {"loguniform": [1e-4, 1e-2]},
            "dropout": {"uniform": [0.0, 0.5]},
            "weight_decay": {"loguniform": [1e-6, 1e-1]},
        },
        description="distributions over hyperparameters (see mlops/space.py)",
    )
    defaults: dict[str, Any] = Field(
        {}, description="trial 0, and the values of what the space leaves out"
    )
    search: SearchSettings = Field(SearchSettings(), description="how configurations are chosen")
    pruning: PruningSettings = Field(PruningSettings(), description="pruning at rungs")

    @field_validator("epochs")
    @classmethod
    def _rule(cls, value: int) -> int:
        if problem := problem_with("epochs", value):
            raise ValueError(problem)
        return value

    @field_validator("space")
    @classmethod
    def _readable_space(cls, value: dict[str, Any]) -> dict[str, Any]:
        SearchSpace.parse(value)
        return value

    @field_validator("defaults")
    @classmethod
    def _known_defaults(cls, value: dict[str, Any]) -> dict[str, Any]:
        problems = []
        value = {name: number(given) if name in REALS else given for name, given in value.items()}
        for name, given in value.items():
            if name not in NAMES:
                problems.append(f"defaults.{name}: must be one of {', '.join(NAMES)}, got {name!r}")
            elif problem := problem_with(name, given):
                problems.append(f"defaults.{name}: {problem}")
        if problems:
            raise SettingsError(problems)
        return value

    @property
    def search_space(self) -> SearchSpace:
        """The parsed search space."""
        return SearchSpace.parse(self.space)

    @property
    def default_configuration(self) -> Hyperparameters:
        """Trial 0."""
        values = {**_DEFAULT.to_dict(), "epochs": self.epochs, **self.defaults}
        return Hyperparameters.from_dict(values)


class PromoteSettings(_Section):
    """Settings of the job promote: one of version, rollback and candidate, which is the default."""

    version: PositiveInt | None = Field(None, description="the version to make champion")
    rollback: bool = Field(False, description="go back to the champion before this one")
    candidate: bool = Field(False, description="make the candidate champion")
    allow_schema_change: bool = Field(
        False,
        validation_alias=AliasChoices("allow-schema-change", "allow_schema_change"),
        description="let the new champion's columns or classes differ from the old one's",
    )
    tracking: TrackingSettings = Field(TrackingSettings(), description="the record")

    @model_validator(mode="after")
    def _one_of_three(self) -> PromoteSettings:
        given = [self.version is not None, self.rollback, self.candidate]
        if sum(given) > 1:
            raise SettingsError(
                "promote must be told one of --version, --rollback and --candidate, got "
                f"{sum(given)} of them; say one"
            )
        return self


class ServeSettings(_Section):
    """Settings of the job serve."""

    alias: str = Field("champion", description="alias of the version to serve")
    host: str = Field(
        "127.0.0.1", description="address to listen on; others than this machine need a token"
    )
    port: int = Field(8000, ge=1, le=65535, description="port to listen on")
    replicas: PositiveInt = Field(1, description="processes that answer")
    cpus_per_replica: PositiveFloat = Field(1.0, description="cores a replica")
    gpus_per_replica: NonNegativeFloat = Field(0.0, description="GPUs a replica")
    poll_seconds: PositiveFloat = Field(
        5.0, description="seconds between looks at where the alias points"
    )
    max_rows: PositiveInt = Field(10_000, description="rows a request")
    max_body_bytes: PositiveInt = Field(16 * 2**20, description="bytes a request")
    max_in_flight: PositiveInt = Field(
        64, description="requests at a time and replica; 503 beyond them"
    )
    request_timeout: PositiveFloat = Field(10.0, description="seconds an answer may take")
    body_timeout: PositiveFloat = Field(5.0, description="seconds a request may take to arrive")
    page: bool = Field(False, description="a page at / to try the model")
    token_file: str | None = Field(
        None, description="file with the token, mode 0600; MLOPS_SERVE_TOKEN wins"
    )
    tracking: TrackingSettings = Field(TrackingSettings(), description="the record")


class AppSettings(ServeSettings):
    """Settings of the job app: the endpoint with its page."""

    page: bool = Field(True, description="a page at / to try the model")


class PredictSettings(_Section):
    """Settings of the job predict."""

    input: str = Field("data/synthetic.parquet", description="table to score, .parquet or .csv")
    output: str = Field("data/scored.parquet", description="file to write, .parquet or .csv")
    alias: str = Field("champion", description="which version: the one this alias points to")
    version: PositiveInt | None = Field(
        None, description="which version: the one of this number, whatever the alias"
    )
    keep_columns: bool = Field(
        True, description="write the table's columns too, before the predictions"
    )
    overwrite: bool = Field(False, description="replace the output if it exists")
    block_rows: PositiveInt | Auto = Field(
        "auto", description="rows scored at a time; auto is about 16 MB of them"
    )
    workers: NonNegativeInt | Auto = Field(
        "auto",
        description="Ray's workers, 0 is this process alone, on all its cores; auto is as many as "
        "fit the cluster of RAY_ADDRESS, 0 without one",
    )
    cpus_per_worker: PositiveFloat = Field(1.0, description="cores a worker of Ray's")
    tracking: TrackingSettings = Field(TrackingSettings(), description="where the registry is")
