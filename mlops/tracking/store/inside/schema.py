"""The tables of MLflow's database: whether they are those known here, and how they are made.

Read in MLflow 3.17.2: store/db/utils.py, and `dc11669786a5`, the last of its migrations. MLflow
brings others with most releases; then runs are written by its client until someone has read them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

REVISION = "dc11669786a5"
# Without these there is no store of MLflow's, whatever else later versions have.
_LEAST = {"alembic_version", "experiments", "runs", "registered_models", "model_versions"}
_revisions: WeakKeyDictionary[Engine, list[str]] = WeakKeyDictionary()


def is_known(engine: Engine) -> bool:
    """Tells whether a database has the tables that are known here; it is asked once.

    Raises:
        SQLAlchemyError: It cannot be read.
    """
    from sqlalchemy import text

    if engine not in _revisions:
        with engine.connect() as connection:
            query = text("SELECT version_num FROM alembic_version")
            _revisions[engine] = list(connection.execute(query).scalars())
    return _revisions[engine] == [REVISION]


def has_tables(engine: Engine) -> bool:
    """Tells whether a database has all tables of the MLflow that is installed.

    Raises:
        SQLAlchemyError: It cannot be read.
    """
    from sqlalchemy import inspect

    try:
        from mlflow.store.db.utils import _all_tables_exist
    except ImportError:
        return set(inspect(engine).get_table_names()) >= _LEAST
    return bool(_all_tables_exist(engine))


def make_tables(engine: Engine) -> bool:
    """Makes them in an empty database, or leaves it to MLflow, which does so when it opens one.

    Returns:
        Whether they are made.
    """
    try:
        from mlflow.store.db.utils import _initialize_tables
    except ImportError:
        return False
    _initialize_tables(engine)
    return True
