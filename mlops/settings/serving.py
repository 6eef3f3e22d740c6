"""Settings of the jobs promote, serve, app and predict."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from mlops.errors import SettingsError
from mlops.settings.sections import (
    Auto,
    ClusterAddress,
    Encoding,
    Section,
    Separator,
    TrackingSettings,
)

# HAProxy counts in milliseconds.
Seconds = Annotated[float, Field(ge=0.01, le=86_400, allow_inf_nan=False)]


class PromoteSettings(Section):
    """Settings of the job promote: one of version, rollback and candidate, which is the default."""

    version: PositiveInt | None = Field(None, description="the version to make champion")
    rollback: bool = Field(False, description="go back to the champion before this one")
    candidate: bool = Field(False, description="make the candidate champion")
    allow_schema_change: bool = Field(
        False,
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


class ServeSettings(Section):
    """Settings of the job serve."""

    alias: str = Field("champion", description="alias of the version to serve")
    host: str = Field(
        "127.0.0.1", description="address to listen on; others than this machine need a token"
    )
    port: int = Field(8000, ge=1, le=65535, description="port to listen on")
    replicas: PositiveInt = Field(1, description="processes that answer")
    cpus_per_replica: PositiveFloat = Field(1.0, description="cores a replica")
    gpus_per_replica: NonNegativeFloat = Field(0.0, description="GPUs a replica")
    poll_seconds: Seconds = Field(
        5.0, description="seconds between looks at where the alias points"
    )
    max_rows: PositiveInt = Field(10_000, description="rows a request")
    max_body_bytes: PositiveInt = Field(16 * 2**20, description="bytes a request, and its answer")
    max_in_flight: PositiveInt = Field(
        64, description="requests at a time and replica; 503 beyond them"
    )
    request_timeout: Seconds = Field(10.0, description="seconds an answer may take")
    body_timeout: Seconds = Field(
        5.0, description="seconds a request may take to arrive, and its reader may pause"
    )
    page: bool = Field(False, description="a page at / to try the model")
    token_file: str | None = Field(
        None, description="file with the token, mode 0600; MLOPS_SERVE_TOKEN wins"
    )
    tracking: TrackingSettings = Field(TrackingSettings(), description="the record")


class AppSettings(ServeSettings):
    """Settings of the job app: the endpoint with its page."""

    page: bool = Field(True, description="a page at / to try the model")


class PredictSettings(Section):
    """Settings of the job predict."""

    input: str = Field(
        "data/synthetic.parquet", description="table to score, of any kind that tune reads"
    )
    output: str = Field("data/scored.parquet", description="file to write, .parquet or .csv")
    separator: Separator = Field(
        None, description="what separates the cells of a CSV file, or tab; found by default"
    )
    encoding: Encoding = Field(
        None, description="encoding of a CSV file, such as latin-1; found by default"
    )
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
        "fit the cluster, 0 without one",
    )
    cpus_per_worker: PositiveFloat = Field(1.0, description="cores a worker of Ray's")
    address: ClusterAddress = Field(
        None, description="Ray cluster: auto or HOST:PORT; by default RAY_ADDRESS"
    )
    tracking: TrackingSettings = Field(TrackingSettings(), description="where the registry is")
