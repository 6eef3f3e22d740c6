"""The model being served: follows the registry's alias while requests run."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Protocol

from mlops.errors import MlopsError, RequestError, first_line
from mlops.serving.champion.predictor import ServedModel
from mlops.tracking.models import registry
from mlops.tracking.store.store import Registry, open_registry

RETRY_SECONDS = 60.0
logger = logging.getLogger(__name__)


class SwapCounter(Protocol):
    """Whoever wants to know of swaps."""

    def count_swap(self, name: str, version: int) -> None: ...
    def count_refusal(self) -> None: ...


@dataclass(frozen=True)
class Refused:
    """A version that is not served though the alias points to it."""

    version: int
    reason: str


class Champion:
    """Holds the model that answers, and exchanges it when the alias moves.

    One thread looks at the registry each `poll_seconds`. A version that is new is loaded beside the
    one that serves, checked file by file, asked for the answers recorded with it, and only then put
    in its place, by one assignment. So a request that reads `model` once is answered by one version
    whatever happens meanwhile, and none is dropped.

    What goes wrong leaves the old version serving: a version that cannot be loaded or gives other
    answers is refused, which is logged once, and tried again each minute as long as the alias
    points to it; a registry that does not answer is asked again; an alias that is removed changes
    nothing. (A canary would be a second `Champion` of another alias, and a rule in `Endpoint` for
    which of the two is asked.)

    Args:
        uri: The MLflow store, as in the settings.
        name: The registered model.
        alias: The alias of the version to serve.
        poll_seconds: Seconds between looks.
        counter: Is told of swaps.
    """

    def __init__(
        self,
        uri: str | None = None,
        name: str = registry.MODEL,
        alias: str = registry.CHAMPION,
        poll_seconds: float = 5.0,
        counter: SwapCounter | None = None,
    ) -> None:
        self.name = name
        self.alias = alias
        self.refused: Refused | None = None
        self.registry_error: str | None = None
        self.counter = counter
        self._model: ServedModel | None = None
        self._uri = uri
        self._store: Registry | None = None
        self._poll_seconds = poll_seconds
        self._retry_at = 0.0
        self._absent: str | None = None
        self._looking = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def model(self) -> ServedModel | None:
        """The model being served now; read it once a request."""
        return self._model

    def required(self) -> ServedModel:
        """Returns the model being served.

        Raises:
            RequestError: There is none.
        """
        if self._model is None:
            raise RequestError(503, "no_model", self._why_none())
        return self._model

    def start(self) -> None:
        """Looks once, so that a model that is there is served at once, and goes on looking."""
        self.refresh()
        self._thread = threading.Thread(target=self._follow, name="champion", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the looking."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def refresh(self) -> None:
        """Looks at the registry now, and takes up a new version; raises nothing."""
        with self._looking:
            try:
                self._store = self._store or open_registry(self._uri)
                self._store.check_file()
                version = registry.version_of(self._store, self.name, self.alias)
                run_id = ""
                if version is not None:
                    run_id = registry.run_of(self._store, self.name, version)
            except MlopsError as error:
                self._note_registry(first_line(error))
                return
            except Exception as error:  # a driver's own errors
                self._note_registry(f"{type(error).__name__}: {first_line(error)}")
                return
            self._note_registry(None)
            self._note_absence(self._store if version is None else None)
            if version is not None:
                self._take_up(self._store, version, run_id)

    def _take_up(self, store: Registry, version: int, run_id: str) -> None:
        # A model that is deleted and made again counts its versions from 1 again.
        served = self._model
        if served is not None and (served.version, served.run_id) == (version, run_id):
            self.refused = None
            return
        known = self.refused is not None and self.refused.version == version
        if known and time.monotonic() < self._retry_at:
            return
        try:
            model = ServedModel.of(registry.load_version(store, self.name, version))
            model.check_sample()
        except Exception as error:  # whatever is wrong with a model, the one that serves goes on
            self._refuse(version, error)
            return
        old, self._model, self.refused = self._model, model, None
        logger.info(
            "serving %s version %d%s",
            self.name,
            version,
            f", before it {old.version}" if old is not None else "",
        )
        if self.counter is not None:
            self.counter.count_swap(self.name, version)

    def _refuse(self, version: int, error: Exception) -> None:
        reason = first_line(error)
        if not isinstance(error, MlopsError):
            reason = f"a model must be whole, got {type(error).__name__}: {reason}"
        self._retry_at = time.monotonic() + RETRY_SECONDS
        refused = Refused(version, reason)
        if refused == self.refused:
            return
        self.refused = refused
        serving = f"version {self._model.version}" if self._model is not None else "no model"
        logger.error("refused %s version %d: %s; serving %s", self.name, version, reason, serving)
        if self.counter is not None:
            self.counter.count_refusal()

    def _note_registry(self, error: str | None) -> None:
        """Keeps, and logs once, that the registry does not answer, and that it does again."""
        if error is not None and self.registry_error is None:
            logger.warning("the registry does not answer: %s", error)
        elif error is None and self.registry_error is not None:
            logger.info("the registry answers again")
        self.registry_error = error

    def _note_absence(self, store: Registry | None) -> None:
        if store is not None and self._absent is None:
            logger.warning("%s has no `%s@%s`", store.display_uri, self.name, self.alias)
        self._absent = None if store is None else store.display_uri

    def _why_none(self) -> str:
        if self.refused is not None:
            return (
                f"a model must be loaded to answer, got version {self.refused.version} refused "
                f"({self.refused.reason})"
            )
        if self.registry_error is not None:
            return f"a model must be loaded to answer, got no registry ({self.registry_error})"
        return (
            f"a model must be registered as `{self.name}@{self.alias}`, got none in "
            f"{self._absent or 'the registry'}; `python -m ray_jobs.tune` makes one"
        )

    def _follow(self) -> None:
        while not self._stopping.wait(self._poll_seconds):
            self.refresh()
