"""A whole table scored with a registered model: block by block, over cores or a cluster.

The driver reads the blocks, workers score them, the driver writes them in the table's order. A
worker gets only the model's columns and returns only the predictions. Only so many blocks are under
way as keep the workers busy, so memory does not grow with the table.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlops.cluster.connection import Connection
from mlops.errors import InputError, TableError
from mlops.files import exists, is_same
from mlops.settings.sections import TrackingSettings
from mlops.tracking.store.store import open_registry

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops.data.blocks import Block
    from mlops.serving.batch.pools import Pool
    from mlops.serving.batch.scoring import BadRow, Scorer
    from mlops.tracking.models.registry import RegisteredModel


@dataclass(frozen=True)
class Job:
    """What is to be scored.

    Attributes:
        input: The table; a path, or a URI in an object store.
        output: The file to write, `.csv` or `.parquet`; likewise.
        model_name: The registered model.
        version: The number of a version, or an alias.
        keep_columns: Write the table's columns too, before the predictions.
        overwrite: Replace the output if there is one.
        block_rows: Rows of a block, or "auto".
        separator: What separates the cells of a CSV file; found by default.
        encoding: The encoding of a CSV file; found by default.
        workers: Ray's workers; 0 for threads of this process instead, one a core. "auto" is as many
            as fit the cluster, 0 without one.
        cpus_per_worker: Cores of a worker of Ray's.
        address: The cluster; by default what `RAY_ADDRESS` says.
    """

    input: str
    output: str
    model_name: str = "mlp"
    version: int | str = "champion"
    keep_columns: bool = True
    overwrite: bool = False
    block_rows: int | Literal["auto"] = "auto"
    separator: str | None = None
    encoding: str | None = None
    workers: int | Literal["auto"] = "auto"
    cpus_per_worker: float = 1.0
    address: str | None = None


def run(job: Job, tracking: TrackingSettings) -> dict[str, Any]:
    """Scores a table.

    Ray starts while the model is read. What stops the job leaves no output, and an older one as it
    was.

    Args:
        job: What to score.
        tracking: Where the registry is.

    Returns:
        The job's result, JSON values.

    Raises:
        InputError: A file, a cell or the resources cannot be used; of bad cells those of the first
            row with any are named.
        TrackingError: There is no such model, or its files have been changed.
        ServingError: The workers failed.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        # Libraries may print; stdout is for the job's result alone.
        stack.enter_context(redirect_stdout(sys.stderr))
        connection = stack.enter_context(closing(Connection(job.address)))
        background = ThreadPoolExecutor(max_workers=1)
        stack.callback(background.shutdown, wait=False, cancel_futures=True)
        check_output(job)
        source = stack.enter_context(_input(job))
        loading = background.submit(_load, job, tracking)
        pool = stack.enter_context(closing(open_pool(job, connection)))
        model = loading.result()
        scored = _score(job, source, model, pool)
    return {
        "output": job.output,
        "model": _name(model),
        **scored,
        "seconds": round(time.monotonic() - started, 2),
    }


@contextmanager
def _input(job: Job) -> Iterator[Path]:
    """Yields the table's file, which is one as far as can be told before the model is there."""
    from mlops.data.blocks import open_table
    from mlops.data.files.paths import fetched

    with fetched(job.input) as source:
        open_table(source, (), separator=job.separator, encoding=job.encoding)
        yield source


def check_output(job: Job) -> None:
    """Checks that the output may be written.

    Raises:
        InputError: It may not.
    """
    from mlops.data.files.paths import readable

    target = Path(job.output)
    if target.suffix.lower() not in (".csv", ".parquet"):
        raise InputError(f"output must end in .csv or .parquet, got `{job.output}`; rename it")
    if target.is_dir():
        raise InputError(f"output must be a file, got the folder `{target}`; name a file in it")
    with readable(job.output):
        is_there = exists(job.output)
        is_input = is_there and is_same(job.input, job.output)
    if is_input or job.input == job.output:
        raise InputError(
            f"output must be another file than input, got `{job.output}` for both; choose another "
            "name"
        )
    if is_there and not job.overwrite:
        raise InputError(
            f"output must be a new file, got `{job.output}`, which exists; choose another name or "
            "say --overwrite"
        )


def _load(job: Job, tracking: TrackingSettings) -> RegisteredModel:
    from mlops.tracking.models.registry import load_version

    return load_version(open_registry(tracking.uri), job.model_name, job.version)


def open_pool(job: Job, connection: Connection) -> Pool:
    """Chooses who scores: Ray's workers where there is a cluster, else threads.

    Raises:
        InputError: There is no cluster at `RAY_ADDRESS`, or the workers do not fit it.
    """
    from mlops.serving.batch.pools import RayWorkers, Threads

    # Ray's start and its workers' imports take longer than threads take for millions of rows.
    if job.workers == 0 or (job.workers == "auto" and connection.is_local):
        return Threads()
    connection.open()
    return RayWorkers(job.workers, job.cpus_per_worker)


def _name(model: RegisteredModel) -> dict[str, Any]:
    return {"name": model.name, "version": model.version, "run_id": model.run_id}


def _score(job: Job, source: Path, model: RegisteredModel, pool: Pool) -> dict[str, Any]:
    from mlops.data.blocks import open_table, writing
    from mlops.data.columns.kinds import some_of
    from mlops.data.notes import Tally
    from mlops.serving.batch.progress import RowProgress
    from mlops.serving.batch.scoring import Scorer, beside, count_labels, output_schema, tally_of

    started = time.monotonic()
    title = f"scoring {job.input} with {model.name} version {model.version}"
    print(title, file=sys.stderr, flush=True)
    scorer = Scorer(model.predictor)
    block_rows = None if job.block_rows == "auto" else job.block_rows
    table = open_table(
        source,
        scorer.columns,
        only=not job.keep_columns,
        block_rows=block_rows,
        separator=job.separator,
        encoding=job.encoding,
    )
    scorer.check(table.schema.names)
    kept = table.schema if job.keep_columns else None
    schema = output_schema(kept, scorer.schema, _name(model))
    names = schema.names[-len(scorer.schema) :]
    renamed = {old: new for old, new in zip(scorer.schema.names, names, strict=True) if old != new}
    if renamed:
        print(
            "the table has columns of the names of predictions; the predictions are in "
            f"{some_of(list(renamed.values()))}",
            file=sys.stderr,
            flush=True,
        )
    labels, tally = Counter[str](), Tally()
    written = writing(job.output, schema, overwrite=job.overwrite)
    with written as write, RowProgress(table.n_rows) as progress:
        for block, scored in predictions(job.input, scorer, table.blocks(), pool, table.line_of):
            write(beside(block.rows, scored, schema))
            labels.update(count_labels(scored))
            tally.merge(tally_of(scored))
            progress.show(block.first_row + len(scored), block.share)
    if tally.counts:
        print(tally.told(job.input), file=sys.stderr, flush=True)
    seconds, n_rows = time.monotonic() - started, labels.total()
    return {
        "rows": n_rows,
        "labels": dict(sorted(labels.items())),
        "renamed": renamed,
        "notes": tally.to_json(),
        "scoring_seconds": round(seconds, 2),
        "rows_per_second": round(n_rows / seconds),
    }


def predictions(
    path: str,
    scorer: Scorer,
    blocks: Iterable[Block],
    pool: Pool,
    line_of: Callable[[int], int | None] = lambda row: None,
) -> Iterator[tuple[Block, pa.Table]]:
    """Scores the blocks of a table and yields each with its predictions, in order.

    Raises:
        TableError: At the first row that cannot be scored.
    """
    from mlops.serving.batch.scoring import BadRow

    pool.take(scorer)
    names = [column.name for column in scorer.columns]
    for block, scored in in_order(blocks, pool, names):
        if isinstance(scored, BadRow):
            row = block.first_row + scored.row
            line = line_of(row)
            where = f"`{path}`, row {row + 1:,} (the first is 1)"
            where += "" if line is None else f", line {line:,} of the file"
            raise TableError([f"{where}: {problem}" for problem in scored.problems])
        yield block, scored


def in_order(
    blocks: Iterable[Block], pool: Pool, names: list[str]
) -> Iterator[tuple[Block, pa.Table | BadRow]]:
    """Yields every block with what the pool makes of its columns `names`, in order.

    Blocks are read no further ahead than the pool asks.
    """
    under_way: deque[tuple[Block, Any]] = deque()
    for block in blocks:
        under_way.append((block, pool.submit(block.rows.select(names))))
        if len(under_way) > pool.ahead:
            oldest, handle = under_way.popleft()
            yield oldest, pool.collect(handle)
    while under_way:
        oldest, handle = under_way.popleft()
        yield oldest, pool.collect(handle)
