"""Settings of the jobs train and tune."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import (
    AliasChoices,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mlops.configuration.hyperparameters import NAMES, Hyperparameters, problem_with
from mlops.configuration.space import REALS, SearchSpace, number
from mlops.errors import SettingsError
from mlops.settings.sections import (
    Address,
    Auto,
    DataSettings,
    ResourceSettings,
    Section,
    Seed,
    TrackingSettings,
    shortened,
)

_DEFAULT = Hyperparameters()
# MLflow keeps no longer name of a run.
LONGEST_STUDY = 250


class SearchSettings(Section):
    """How configurations are chosen."""

    algorithm: Literal["hyperopt", "optuna", "random"] = Field(
        "hyperopt", description="TPE by hyperopt or by optuna, or random"
    )
    initial_points: PositiveInt = Field(10, description="random trials before TPE starts")


class PruningSettings(Section):
    """Successive halving within a pack: off unless eta is given."""

    eta: int | None = Field(
        None, ge=2, description="keep the best 1/eta of a pack at each rung; off by default"
    )
    min_epochs: PositiveInt = Field(5, description="the first rung, each next is eta times later")


class StudySettings(Section):
    """What train and tune have in common."""

    data: DataSettings = Field(DataSettings(), description="the table")
    metric: Literal["val_accuracy", "val_f1", "val_loss"] = Field(
        "val_accuracy",
        description="what the best epoch and the best trial are best in; of equals the lower "
        "val_loss, then the later epoch",
    )
    seed: Seed = Field(0, description="seed of the search and the training")
    study: str | None = Field(None, description="name of the study; by default job and time")
    address: Address = Field(
        None,
        description="Ray cluster: auto or HOST:PORT; http:// or ray://HOST:PORT sends the job "
        "there; by default RAY_ADDRESS, or this machine alone",
    )
    resources: ResourceSettings = Field(ResourceSettings(), description="cores and GPUs")
    tracking: TrackingSettings = Field(TrackingSettings(), description="the record")

    @field_validator("study")
    @classmethod
    def _a_name(cls, value: str | None) -> str | None:
        if value is None:
            return value
        if not value.strip() or not value.isprintable() or len(value) > LONGEST_STUDY:
            raise ValueError(
                f"must be a name of 1 to {LONGEST_STUDY} letters that can be printed, got "
                f"{shortened(value)}; choose another name"
            )
        if "'" in value and '"' in value:  # MLflow cannot be asked for it
            raise ValueError(
                f"must not have both kinds of quotes, got {shortened(value)}; choose another name"
            )
        return value


class TrainSettings(StudySettings):
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


class TuneSettings(StudySettings):
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
        description="distributions over hyperparameters (see mlops/configuration/space.py)",
    )
    defaults: dict[str, Any] = Field(
        {}, description="trial 0, and the values of what the space leaves out"
    )
    resume: bool = Field(
        False,
        description="go on with the study of that name, or with the last one, as it was begun",
    )
    time_budget: PositiveFloat | None = Field(
        None, description="seconds after which the study is stopped, with the best so far"
    )
    target: float | None = Field(
        None, description="a score, of the metric in any epoch, that stops the study"
    )
    trial_timeout: PositiveFloat | None = Field(
        None, description="seconds without an epoch after which a worker counts as dead"
    )
    no_worker_timeout: PositiveFloat = Field(
        600.0, description="seconds without any worker after which the study stops, to be resumed"
    )
    checkpoint_every: PositiveFloat | None = Field(
        None, description="seconds between checkpoints of a pack in training, kept in the storage"
    )
    max_failures: NonNegativeInt = Field(
        2, description="how often a pack whose worker dies is started again, then each trial alone"
    )
    storage: str = Field(
        "studies",
        description="folder for what MLflow does not have yet, and for checkpoints; on a cluster "
        "these want one that all machines share, or s3://BUCKET/FOLDER",
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

    @field_validator("storage")
    @classmethod
    def _a_place(cls, value: str) -> str:
        if value.endswith("://"):
            raise ValueError(f"must be a folder or a URI with a bucket, got {value!r}; add it")
        if not value.strip() or "\0" in value:
            raise ValueError(f"must be a folder or a URI, got {value!r}; name one")
        try:
            Path(value).expanduser()
        except RuntimeError as error:
            raise ValueError(
                f"must be a folder or a URI, got {value!r}, the home of nobody; name another"
            ) from error
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
