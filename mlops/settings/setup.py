"""Settings of the jobs init_mlflow, generate_data and tracking_server."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from mlops.settings.sections import Section, SyntheticSettings, TrackingSettings


class InitMlflowSettings(Section):
    """Settings of the job init_mlflow."""

    tracking: TrackingSettings = Field(TrackingSettings(), description="the record")


class GenerateDataSettings(SyntheticSettings):
    """Settings of the job generate_data."""

    output: str = Field("data/synthetic.parquet", description="file to write, .parquet or .csv")
    overwrite: bool = Field(
        False, description="replace the output even if it is no generated table"
    )
    tracking: TrackingSettings = Field(TrackingSettings(), description="the record")


class TrackingServerSettings(Section):
    """Settings of the job tracking_server."""

    host: str = Field(
        "127.0.0.1",
        description="address to listen on; others than this machine's own need authentication",
    )
    port: int = Field(5000, ge=1, le=65535, description="port to listen on")
    folder: str = Field("mlflow-server", description="for PostgreSQL's data, artifacts and logs")
    database: str | None = Field(
        None, description="URI of a database of your own; by default PostgreSQL in the folder"
    )
    artifacts: str | None = Field(
        None, description="folder or s3://BUCKET/PATH; by default a folder in the folder"
    )
    authentication: bool = Field(
        False,
        description="names and passwords; the administrator's are MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD",
    )
    allowed_hosts: str | None = Field(
        None, description="names clients may call it by, with commas; by default private addresses"
    )
    workers: PositiveInt = Field(2, description="processes that answer")
