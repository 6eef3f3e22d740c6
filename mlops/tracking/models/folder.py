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

import json
import platform
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops.tracking import pyfunc
from mlops.tracking.models.card import json_rows
from mlops.tracking.models.carried import modules_needed

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import Model, ModelSignature
    from torch.export import ExportedProgram
    from torch.nn import Module

PREDICTOR = "predictor"
EXAMPLE_ROWS = 5
REQUIREMENTS = ("mlflow", "numpy", "pandas", "pyarrow", "safetensors", "torch")


def write_folder(
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
    root = Path(pyfunc.__file__).parents[2]
    for module in modules_needed(pyfunc.__name__, root):
        target = folder / module
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / module, target)


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
    answer, *names = predictor.task.columns
    return ModelSignature(
        inputs=Schema([ColSpec(AnyType(), column.name) for column in predictor.encoder.columns]),
        outputs=Schema(
            [ColSpec(label, answer), *(ColSpec(DataType.double, name) for name in names)]
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
