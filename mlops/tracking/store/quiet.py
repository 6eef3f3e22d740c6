"""Silence of MLflow's loggers: what they would say at length we raise in a line."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_QUIETED = ("mlflow", "alembic", "sqlalchemy")


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the loggers of MLflow and its database layer for a while."""
    loggers = [logging.getLogger(name) for name in _QUIETED]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
