"""Small bodies that are much work, and large answers that nobody reads."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from endpoint_harness import Endpoint, EndpointSettings, numeric_table, register, serve
from job import wait_until

from mlops.nn.tasks.classification import Classification
from mlops.serving.champion.champion import Champion
from mlops.serving.champion.predictor import WEIGHTS_AT_ONCE, ServedModel
from mlops.serving.endpoint.answering import INLINE_BYTES
from mlops.serving.endpoint.app import make_app
from mlops.serving.protocols import mlflow_scoring, responses
from mlops.serving.protocols.predict import ARROW
from mlops.tracking.store.store import Store

pytestmark = pytest.mark.timeout(300)

N_CLASSES = 100
N_ROWS = 10_000
N_BYTES = 8 * N_ROWS * (N_CLASSES + 1)  # of an answer in Arrow, about
NAMES = ("feature_0", "feature_1")


class Network:
    """A model's network that notes who uses it, and may keep those with many rows waiting."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.threads: list[str] = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self.open.set()

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        self.threads.append(threading.current_thread().name)
        if len(x) > 1:
            self.entered.release()
            assert self.open.wait(120)
        found: np.ndarray = self.network.probabilities(x)
        return found


class Watched(NamedTuple):
    """An endpoint, its application, its model and its network."""

    endpoint: Endpoint
    app: Any
    model: ServedModel
    network: Network


@contextmanager
def watching(store: Store, name: str, settings: EndpointSettings) -> Iterator[Watched]:
    champion = Champion(store.uri, name, poll_seconds=3600.0)
    app = make_app(settings, champion)
    with serve(app, champion=champion) as endpoint:
        model = champion._model
        assert model is not None
        network = Network(model.network)
        watched = dataclasses.replace(model, network=network)  # type: ignore[arg-type]
        champion._model = watched
        yield Watched(endpoint, app, watched, network)


@pytest.fixture(scope="module")
def many_classes(shared_store: Store) -> str:
    """The name of a model of two columns and a hundred classes."""
    classes = tuple(f"class_{number}" for number in range(N_CLASSES))
    register(shared_store, numeric_table(2), name="many", classes=classes, hidden_dims=(64, 32))
    return "many"


@pytest.fixture(scope="module")
def wide(many_classes: str, shared_store: Store) -> Iterator[Watched]:
    """An endpoint with room for large answers."""
    settings = EndpointSettings(
        max_rows=N_ROWS, max_body_bytes=64 * 2**20, max_in_flight=64, request_timeout=120.0
    )
    with watching(shared_store, many_classes, settings) as watched:
        yield watched


@pytest.fixture(scope="module")
def narrow(many_classes: str, shared_store: Store) -> Iterator[Watched]:
    """An endpoint with little."""
    settings = EndpointSettings(max_rows=N_ROWS, max_body_bytes=2**20, request_timeout=120.0)
    with watching(shared_store, many_classes, settings) as watched:
        yield watched


class Body(NamedTuple):
    """A way to ask for rows."""

    name: str
    path: str
    content_type: str
    write: Callable[[int], bytes]


def cells(n_rows: int) -> list[list[int]]:
    """The columns of a table of digits."""
    return [[row % 10 for row in range(n_rows)], [row // 10 % 10 for row in range(n_rows)]]


def compact(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def records(n_rows: int) -> list[dict[str, int]]:
    return [dict(zip(NAMES, row, strict=True)) for row in zip(*cells(n_rows), strict=True)]


def columns(n_rows: int) -> dict[str, list[int]]:
    return dict(zip(NAMES, cells(n_rows), strict=True))


def split(n_rows: int) -> dict[str, Any]:
    rows = list(zip(*cells(n_rows), strict=True))
    return {"dataframe_split": {"columns": NAMES, "data": rows}}


def csv(n_rows: int) -> bytes:
    lines = [",".join(map(str, row)) for row in zip(*cells(n_rows), strict=True)]
    return "\n".join([",".join(NAMES), *lines]).encode()


def arrow(n_rows: int) -> bytes:
    arrays = [pa.array(column, pa.int8()) for column in cells(n_rows)]
    table = pa.table(arrays, names=list(NAMES))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def tensors(n_rows: int, **more: Any) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": name, "shape": [n_rows], "datatype": "INT8", "data": column}
            for name, column in zip(NAMES, cells(n_rows), strict=True)
        ],
        **more,
    }


def matrix(n_rows: int) -> dict[str, Any]:
    data = [cell for row in zip(*cells(n_rows), strict=True) for cell in row]
    return {"inputs": [{"name": "x", "shape": [n_rows, 2], "datatype": "INT8", "data": data}]}


JSON = "application/json"
INFER = "/v2/models/many/infer"
BODIES = [
    Body("rows", "/predict", JSON, lambda n: compact({"rows": records(n)})),
    Body("columns", "/predict", JSON, lambda n: compact({"columns": columns(n)})),
    Body("csv", "/predict", "text/csv", csv),
    Body("arrow", "/predict", ARROW, arrow),
    Body("split", "/invocations", JSON, lambda n: compact(split(n))),
    Body("records", "/invocations", JSON, lambda n: compact({"dataframe_records": records(n)})),
    Body("inputs", "/invocations", JSON, lambda n: compact({"inputs": columns(n)})),
    Body("instances", "/invocations", JSON, lambda n: compact({"instances": records(n)})),
    Body("csv-invocations", "/invocations", "text/csv", csv),
    Body("tensors", INFER, JSON, lambda n: compact(tensors(n))),
    Body("matrix", INFER, JSON, lambda n: compact(matrix(n))),
]
ALL = pytest.mark.parametrize("body", BODIES, ids=[body.name for body in BODIES])


def ask(endpoint: Endpoint, body: Body, n_rows: int) -> Any:
    return endpoint.ask(body.path, body.write(n_rows), content_type=body.content_type)


def most_rows(body: Body) -> int:
    """As many rows as a small body may have."""
    per_row = (len(body.write(1000)) - len(body.write(500))) / 500
    return min(N_ROWS, int((INLINE_BYTES - 500) / per_row))


@ALL
def test_much_work_is_done_in_a_thread_however_small_its_body(body: Body, wide: Watched) -> None:
    """Half a second and 40 MB of answer, on the event loop, for 40 KB."""
    n_rows = most_rows(body)
    assert n_rows > wide.model.rows_at_once
    assert len(body.write(n_rows)) <= INLINE_BYTES
    wide.network.threads.clear()
    answer = ask(wide.endpoint, body, n_rows)
    assert answer.status_code == 200
    (much,) = wide.network.threads
    assert much.startswith("predict")

    assert ask(wide.endpoint, body, 1).status_code == 200
    assert not wide.network.threads[-1].startswith("predict")
    assert wide.app._answers.held == 0


@pytest.mark.parametrize("more", [0, 1])
def test_rows_and_model_draw_the_line(more: int, wide: Watched) -> None:
    n_rows = wide.model.rows_at_once + more
    ask(wide.endpoint, BODIES[1], n_rows)
    assert wide.network.threads[-1].startswith("predict") == bool(more)


def test_more_of_anything_is_fewer_rows_at_once(wide: Watched) -> None:
    model = wide.model
    assert 1 < model.rows_at_once < WEIGHTS_AT_ONCE // model.n_weights
    larger = dataclasses.replace(model, n_weights=1000 * model.n_weights)
    more_classes = dataclasses.replace(model, task=Classification(range(10_000)))
    assert larger.rows_at_once < model.rows_at_once
    assert more_classes.rows_at_once == 0


def test_cells_that_one_value_stands_for_are_much_work_too(
    shared_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four million cells in 30 KB: even reading them is not for the event loop."""
    register(shared_store, numeric_table(400), name="broad")
    settings = EndpointSettings(max_rows=N_ROWS, max_body_bytes=2**24, request_timeout=120.0)
    content: dict[str, Any] = {f"feature_{number}": 0 for number in range(1, 400)}
    body = compact({"inputs": {**content, "feature_0": [0] * N_ROWS}})
    assert len(body) <= INLINE_BYTES
    threads = []
    read = mlflow_scoring.read_cells

    def watched(*given: Any, **options: Any) -> Any:
        threads.append(threading.current_thread().name)
        return read(*given, **options)

    monkeypatch.setattr(mlflow_scoring, "read_cells", watched)
    with watching(shared_store, "broad", settings) as broad:
        answer = broad.endpoint.ask("/invocations", body)
    assert answer.status_code == 200
    assert len(answer.json()["predictions"]) == N_ROWS
    (thread,) = threads
    assert thread.startswith("predict")


def test_others_are_answered_meanwhile(wide: Watched) -> None:
    network = wide.network
    network.open.clear()
    answers: list[int] = []
    clients = [
        threading.Thread(
            target=lambda body=body: answers.append(
                ask(wide.endpoint, body, most_rows(body)).status_code
            )
        )
        for body in BODIES
    ]
    try:
        for client in clients:
            client.start()
        assert network.entered.acquire(timeout=60)
        for body in BODIES:
            assert ask(wide.endpoint, body, 1).status_code == 200
        assert wide.endpoint.ask("/ping").status_code == 200
        assert wide.endpoint.ask("/model").status_code == 200
        assert answers == []
    finally:
        network.open.set()
        for client in clients:
            client.join()
    assert answers == [200] * len(BODIES)


@ALL
def test_parts_of_an_answer_make_the_whole(
    body: Body, wide: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = set()
    for values in (1, 150, 4096, 10**9):
        monkeypatch.setattr(responses, "PART_VALUES", values)
        bodies.add(ask(wide.endpoint, body, 67).content)
    (whole,) = bodies
    assert len(whole) > 67 * N_CLASSES * 4


def refusal_of(answer: Any) -> tuple[int, str, str]:
    found = answer.json()
    if isinstance(found.get("error"), dict):
        return answer.status_code, found["error"]["code"], found["error"]["message"]
    code = found.get("code") or found["error_code"].lower()
    return answer.status_code, code, found.get("message") or found["error"]


@ALL
def test_an_answer_too_large_is_told(body: Body, narrow: Watched) -> None:
    """As soon as it is known: before anything is computed, else while it is written."""
    rule = f"an answer must have at most {2**20} bytes"
    narrow.network.threads.clear()
    status, code, message = refusal_of(ask(narrow.endpoint, body, N_ROWS))
    assert (status, code) == (413, "too_large")
    assert message.startswith(rule)
    assert narrow.network.threads == []

    status, code, message = refusal_of(ask(narrow.endpoint, body, 2000))
    assert (status, code) == (413, "too_large")
    assert message.startswith(rule)
    assert len(narrow.network.threads) == 1
    assert ask(narrow.endpoint, body, 100).status_code == 200


def test_an_answer_counts_by_what_is_asked_for(narrow: Watched) -> None:
    content = tensors(N_ROWS, outputs=[{"name": "label"}])
    answer = narrow.endpoint.ask(INFER, compact(content))
    assert answer.status_code == 200
    assert answer.json()["outputs"][0]["shape"] == [N_ROWS]


def ask_and_not_read(port: int) -> socket.socket:
    """Asks for a large answer."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    body = arrow(N_ROWS)
    head = f"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Type: {ARROW}\r\n"
    client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return client


def read_to_end(client: socket.socket) -> bytes:
    """Reads an answer as far as it comes."""
    client.settimeout(60)
    received = bytearray()
    while part := client.recv(2**20):
        received += part
        head = bytes(received[:2000]).partition(b"\r\n\r\n")[0]
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length")
        )
        if len(received) >= len(head) + 4 + length:
            break
    return bytes(received)


def test_answers_that_nobody_reads_are_bounded_all_together(
    many_classes: str, shared_store: Store
) -> None:
    """Four of the largest size; who asks for a large one then is told to come again."""
    settings = EndpointSettings(
        max_rows=N_ROWS, max_body_bytes=N_BYTES + 2**18, request_timeout=120.0, body_timeout=120.0
    )
    with (
        watching(shared_store, many_classes, settings) as watched,
        ExitStack() as stack,
    ):
        endpoint, answers = watched.endpoint, watched.app._answers
        clients = []
        for number in range(1, 5):
            clients.append(stack.enter_context(closing(ask_and_not_read(endpoint.port))))
            wait_until(lambda number=number: answers.held >= number * N_BYTES * 0.9, "an answer")
        size = answers.held / 4
        for body in BODIES:
            assert ask(endpoint, body, 1).status_code == 200
        refused = endpoint.ask("/predict", arrow(N_ROWS), content_type=ARROW)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        assert refused.headers["Retry-After"]
        assert answers.held == 4 * size

        received = read_to_end(clients[0])
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert pa.ipc.open_stream(body).read_all().num_rows == N_ROWS
        wait_until(lambda: answers.held == 3 * size, "the answer that is read to count no more")
        again = endpoint.ask("/predict", arrow(N_ROWS), content_type=ARROW)
        assert again.status_code == 200
        assert again.content == body
    wait_until(lambda: answers.held == 0, "clients that are gone to count no more")


def test_who_does_not_read_on_is_let_go(many_classes: str, shared_store: Store) -> None:
    settings = EndpointSettings(
        max_rows=N_ROWS, max_body_bytes=N_BYTES + 2**18, request_timeout=120.0, body_timeout=0.5
    )
    with watching(shared_store, many_classes, settings) as watched:
        answers = watched.app._answers
        with closing(ask_and_not_read(watched.endpoint.port)) as client:
            wait_until(lambda: answers.held > 0, "an answer")
            wait_until(lambda: answers.held == 0, "the client to be let go")
            assert len(read_to_end(client)) < N_BYTES
        assert watched.endpoint.ask("/ping").status_code == 200
