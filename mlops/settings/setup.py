"""Settings of the jobs init_mlflow and generate_data."""

from __future__ import annotations

from pydantic import Field

from mlops.settings.sections import Section, SyntheticSettings, TrackingSettings


class InitMlflowSettings(Section):
    """Settings of the job init_mlflow."""

    tracking: TrackingSettings = Field(TrackingSettings(), description="the record")


class GenerateDataSettings(SyntheticSettings):
    """Settings of the job generate_data."""

    output: str = Field("data/synthetic.parquet", description="file to write, .parquet or .csv")
    tracking: TrackingSettings = Field(TrackingSettings(), description="the record")
