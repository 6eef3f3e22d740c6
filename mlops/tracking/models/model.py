"""A study's best model as an MLflow model, loadable as `pyfunc` and as `pytorch`, without pickle.

    MLmodel  requirements.txt  conda.yaml  python_env.yaml  input_example.json
    predictor/       what `mlops.tracking.pyfunc` reads: safetensors and JSON, with the model's card
    data/model.pt2   the exported network, for `mlflow.pytorch.load_model`
    code/mlops/      the part of this package that predicts: it need not be installed to load one
    checksums.json   SHA-256 of every other file; its own is the tag `sha256` of the model

MLflow's loaders put code/ before all else on the path and import from it; `registry.load_version`
does not.
"""

from __future__ import annotations

import copy
import io
import json
import platform
import shutil
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops.configuration.hyperparameters import NAMES, Hyperparameters
from mlops.errors import TrackingError
from mlops.tracking import pyfunc
from mlops.tracking.models.card import json_rows
from mlops.tracking.models.checksums import SHA256_TAG, write_checksums
from mlops.tracking.store.store import SENDERS, Store, explained, prepare_environment

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import LoggedModel as MlflowModel
    from mlflow.models import Model, ModelSignature
    from mlflow.tracking import MlflowClient
    from torch.export import ExportedProgram
    from torch.nn import Module

    from mlops.data.columns.features import FeatureEncoder
    from mlops.nn.mlp import MLP
    from mlops.nn.tasks.task import Task

NAME = "model"
PREDICTOR = "predictor"
EXAMPLE_ROWS = 5
REQUIREMENTS = ("mlflow", "numpy", "pandas", "pyarrow", "safetensors", "torch")
# The part of this package that a model needs to predict.
CODE = (
    "__init__",
    "errors",
    "configuration/__init__",
    "configuration/hyperparameters",
    "data/__init__",
    "data/cells/__init__",
    "data/columns/__init__",
    "data/columns/kinds",
    "data/columns/date_columns",
    "data/cells/dates",
    "data/cells/durations",
    "data/columns/encoders",
    "data/columns/features",
    "data/cells/levels",
    "data/notes",
    "data/cells/numbers",
    "data/cells/plain",
    "data/columns/reading",
    "data/columns/time_scales",
    "data/cells/spelling",
    "nn/__init__",
    "nn/activations",
    "nn/mlp",
    "nn/tasks/__init__",
    "nn/tasks/classification",
    "nn/tasks/metrics",
    "nn/tasks/task",
    "tracking/__init__",
    "tracking/pyfunc",
)


@dataclass(frozen=True)
class LoggedModel:
    """A model on record.

    Attributes:
        uri: `models:/m-...`, for MLflow's loaders.
        model_id: MLflow's id of it.
        run_id: The run that made it.
        location: Where its files are.
        sha256: SHA-256 of its `checksums.json`.
    """

    uri: str
    model_id: str
    run_id: str
    location: str
    sha256: str


def warm_up() -> None:
    """Does what the first `log_model` of a process spends most of its time on: imports.

    Measured: `torch.export` takes 2.5 s of CPU the first time, `log_model` after it 0.4 s. So call
    this in a thread while workers train.
    """
    import torch

    tiny = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2))
    torch.export.save(export(tiny, 2), io.BytesIO())
    prepare_environment()
    import mlflow.models  # noqa: F401


def log_model(
    store: Store,
    run_id: str,
    *,
    mlp: MLP,
    hyperparameters: Hyperparameters,
    encoder: FeatureEncoder,
    task: Task,
    target_name: str,
    training_columns: Sequence[str] = (),
    example: pd.DataFrame,
    metrics: dict[str, float] | None = None,
    card: dict[str, Any] | None = None,
) -> LoggedModel:
    """Records a trained model under the name `model` of a run.

    Args:
        store: Where the run is.
        run_id: The study's run.
        mlp: The network with its weights; it is not changed.
        hyperparameters: Its configuration.
        encoder: The preprocessing it was trained with.
        task: What it predicts.
        target_name: The column it predicts.
        training_columns: All columns of the table it was trained on.
        example: Some raw rows; the first few are stored with the model.
        metrics: The model's scores, recorded both on the run and on the model: whoever calls this
            need not log them again. The step is 0 for a run's first model, 1 for the next.
        card: What is to be known of the model (`mlops.tracking.models.card`).

    Raises:
        TrackingError: The model could not be stored; the record of it is marked as failed.
    """
    prepare_environment()
    network = copy.deepcopy(mlp).cpu().eval()
    predictor = pyfunc.Predictor(
        network, encoder, task, target_name, hyperparameters, tuple(training_columns)
    )
    with tempfile.TemporaryDirectory(prefix="mlops-model-") as scratch:
        folder = Path(scratch) / NAME
        model = _save(folder, predictor, example, card or {})
        return _record(store, run_id, folder, model, predictor, metrics or {})


def _record(
    store: Store,
    run_id: str,
    folder: Path,
    model: Model,
    predictor: pyfunc.Predictor,
    metrics: dict[str, float],
) -> LoggedModel:
    from mlflow.entities import LoggedModelOutput, Metric
    from mlflow.exceptions import MlflowException

    client = store.client
    params = {key: str(value) for key, value in predictor.hyperparameters.to_dict().items()}
    step = _next_step(client, run_id, metrics)
    entry = client.create_logged_model(
        store.experiment_id, NAME, source_run_id=run_id, params=params, model_type="classifier"
    )
    model.model_id = model.model_uuid = entry.model_id
    model.run_id, model.artifact_path = run_id, entry.artifact_location
    model.save(str(folder / "MLmodel"))
    sha256 = write_checksums(folder)
    try:
        _upload(store, entry.model_id, folder)
        client.set_logged_model_tags(entry.model_id, {SHA256_TAG: sha256})
        client.log_outputs(run_id, [LoggedModelOutput(entry.model_id, step=step)])
        now = int(time.time() * 1000)
        scores = [
            Metric(key, value, now, step, model_id=entry.model_id, run_id=run_id)
            for key, value in metrics.items()
        ]
        client.log_batch(run_id, metrics=scores)
        client.finalize_logged_model(entry.model_id, "READY")
    except (MlflowException, OSError) as error:
        with suppress(MlflowException):
            client.finalize_logged_model(entry.model_id, "FAILED")
        raise TrackingError(
            f"the model must be stored in {entry.artifact_location}, got {error}; see to the store"
        ) from error
    uri = f"models:/{entry.model_id}"
    return LoggedModel(uri, entry.model_id, run_id, entry.artifact_location, sha256)


def _upload(store: Store, model_id: str, folder: Path) -> None:
    """Uploads a model's files, to a server several at a time: each of its answers may take long."""
    client = store.client
    if not store.uri.startswith("http"):
        client.log_model_artifacts(model_id, str(folder))
        return

    def put(file: Path) -> None:
        parent = file.relative_to(folder).parent.as_posix()
        client.log_model_artifact(model_id, str(file), None if parent == "." else parent)

    first, *rest = [path for path in folder.rglob("*") if path.is_file()]
    put(first)  # MLflow asks for the place once, and keeps it
    with ThreadPoolExecutor(SENDERS, "mlflow-upload") as senders:
        list(senders.map(put, rest))


def _next_step(client: MlflowClient, run_id: str, metrics: dict[str, float]) -> int:
    """The step after those of the run's earlier models."""
    known = metrics.keys() & client.get_run(run_id).data.metrics.keys()
    histories = [client.get_metric_history(run_id, key) for key in known]
    return max((metric.step for history in histories for metric in history), default=-1) + 1


def discard_unregistered(store: Store, run_id: str) -> None:
    """Deletes the models of a run whose driver died before it had registered them.

    Raises:
        TrackingError: The store refuses.
    """
    client = store.client
    with explained(store):
        versions = client.search_model_versions(f"run_id = '{run_id}'")
        kept = {version.source for version in versions}
        for model in models_of_run(store, run_id):
            # What users have logged there has not these params.
            is_ours = model.name == NAME and set(model.params) == set(NAMES)
            if is_ours and model.artifact_location not in kept:
                client.delete_logged_model(model.model_id)


def models_of_run(store: Store, run_id: str) -> list[MlflowModel]:
    """Returns the models that were logged by a run."""
    query = f"source_run_id = '{run_id}'"
    return list(store.client.search_logged_models([store.experiment_id], filter_string=query))


def _save(
    folder: Path, predictor: pyfunc.Predictor, example: pd.DataFrame, card: dict[str, Any]
) -> Model:
    """Writes a model folder, all but MLmodel, which wants ids that only the store can give.

    This is what `mlflow.pytorch.save_model` writes, without its comparing of every requirement with
    all that is installed (1-3 s).
    """
    import torch
    from mlflow.models import Model

    _write_code(folder / "code")
    (folder / "data").mkdir()
    torch.export.save(export(predictor.mlp, predictor.encoder.width), folder / "data" / "model.pt2")
    pyfunc.write(folder / PREDICTOR, predictor, card)
    _write_environment(folder)

    model = Model()
    model.add_flavor(
        "pytorch", model_data="data", code="code", pytorch_version=str(torch.__version__)
    )
    model.add_flavor(
        "python_function",
        loader_module=pyfunc.__name__,
        data=PREDICTOR,
        code="code",
        python_version=platform.python_version(),
        env={"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
    )
    model.signature = _signature(predictor)
    kinds = {column.name: column.kind for column in predictor.encoder.columns}
    model.metadata = {"columns": kinds, "target": predictor.target_name}
    model.saved_input_example_info = _write_example(folder, example.head(EXAMPLE_ROWS))
    model.model_size_bytes = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    return model


def _write_code(folder: Path) -> None:
    package = Path(pyfunc.__file__).parents[1]
    for module in CODE:
        target = folder / package.name / f"{module}.py"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(package / f"{module}.py", target)


def export(network: Module, n_features: int) -> ExportedProgram:
    """Exports a network for any number of rows.

    Two rows, because with one the exporter takes their number for a constant.
    """
    import torch

    rows = {0: torch.export.Dim.AUTO}
    return torch.export.export(network, (torch.zeros(2, n_features),), dynamic_shapes=[rows])


def _write_environment(folder: Path) -> None:
    """Names what loading needs, as installed, in the three files that MLflow reads.

    A local label of a version, such as torch's `+cpu`, is left out: no index need have it.
    """
    import yaml

    requirements = [f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS]
    python = platform.python_version()
    conda = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": requirements}],
    }
    virtual = {
        "python": python,
        "build_dependencies": ["pip"],
        "dependencies": ["-r requirements.txt"],
    }
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
    (folder / "conda.yaml").write_text(yaml.safe_dump(conda), encoding="utf-8")
    (folder / "python_env.yaml").write_text(yaml.safe_dump(virtual), encoding="utf-8")


def _signature(predictor: pyfunc.Predictor) -> ModelSignature:
    """Names the columns; their types are the encoder's to check, cell by cell.

    MLflow's own types refuse rows that we can read: a batch whose numbers happen to be whole is
    int64 and no `double`, a gap makes a `long` a float64, and a text column of gaps alone is no
    `string`. The kinds of the columns are in the model's metadata.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType

    types = {bool: DataType.boolean, int: DataType.long, float: DataType.double}
    label = types.get(type(predictor.task.classes[0]), DataType.string)
    answer, *values = predictor.task.columns
    return ModelSignature(
        inputs=Schema([ColSpec(AnyType(), column.name) for column in predictor.encoder.columns]),
        outputs=Schema(
            [ColSpec(label, answer), *(ColSpec(DataType.double, name) for name in values)]
        ),
    )


def _write_example(folder: Path, example: pd.DataFrame) -> dict[str, str]:
    """Writes rows as MLflow's loaders and its server read them; returns what MLmodel says."""
    cells = [list(row.values()) for row in json_rows(example)]
    rows = json.dumps({"columns": [str(name) for name in example.columns], "data": cells})
    (folder / "input_example.json").write_text(rows, encoding="utf-8")
    request = f'{{"dataframe_split": {rows}}}'
    (folder / "serving_input_example.json").write_text(request, encoding="utf-8")
    return {
        "artifact_path": "input_example.json",
        "type": "dataframe",
        "pandas_orient": "split",
        "serving_input_path": "serving_input_example.json",
    }
