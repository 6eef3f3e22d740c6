"""Search spaces, with and without conditions."""

from __future__ import annotations

from mlops.configuration.space import SearchSpace

SPACE = SearchSpace.parse(
    {
        "hidden_dims": {"choice": [[32], [64], [64, 32], [128, 64]]},
        "batch_size": {"int": [16, 64]},
        "learning_rate": {"loguniform": [1e-4, 1e-2]},
        "dropout": {"uniform": [0.0, 0.5]},
    }
)
CONDITIONAL = SearchSpace.parse(
    {
        "learning_rate": {"loguniform": [1e-4, 1e-2]},
        "regularization": {
            "choice": [
                {"dropout": {"uniform": [0.1, 0.5]}, "weight_decay": 0},
                {"dropout": 0, "weight_decay": {"loguniform": [1e-6, 1e-2]}},
            ]
        },
    }
)
