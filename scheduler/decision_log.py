"""The decision log: every decision with what it was made of, and later its outcome, as Parquet files in one folder.

Two kinds of files, `decisions-*` and `outcomes-*`, joined by decision. Rows wait in memory for up to FLUSH_S and are
written by a thread; a folder that cannot be written costs rows, which are counted, and never a decision. Files are
removed, oldest first, beyond `max_bytes`. Needs pyarrow, which the extra `decisions` brings.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel

from adaptivegen.clock import Clock
from adaptivegen.errors import SettingsInvalid
from adaptivegen.placement import Decision, Outcome, PlacementQuery
from adaptivegen.telemetry import get_logger

if TYPE_CHECKING:
    import pyarrow as pa

FLUSH_S = 10.0
MAX_WAITING = 16_384  # rows in memory, of a few KB each; the oldest give way
ROWS_AT_ONCE = 256
_OWN = re.compile(r"(decisions|outcomes)-[a-z0-9_-]+-[0-9]+\.parquet")
Kind = Literal["decisions", "outcomes"]
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Logged:
    """One decision as it was logged; `outcome` is None where none was reported."""

    query: PlacementQuery
    decision: Decision
    outcome: Outcome | None


class DecisionLog:
    """Writes the log of one scheduler. `run` must be running; `close` writes what waits.

    Raises SettingsInvalid where pyarrow is not installed or the folder cannot be made.
    """

    def __init__(self, folder: Path, *, node_id: str, clock: Clock, max_bytes: int) -> None:
        try:
            import pyarrow  # noqa: F401

            folder.mkdir(parents=True, exist_ok=True)
        except ImportError as exc:
            hint = "a decision log needs pyarrow: pip install 'adaptivegen[decisions]'"
            raise SettingsInvalid(hint, param="decision_log") from exc
        except OSError as exc:
            raise SettingsInvalid(f"decision_log {folder} cannot be made: {exc}", param="decision_log") from exc
        self._folder = folder
        self._node_id = node_id
        self._clock = clock
        self._max_bytes = max_bytes
        self._waiting: dict[Kind, deque[dict[str, Any]]] = {
            "decisions": deque(maxlen=MAX_WAITING),
            "outcomes": deque(maxlen=MAX_WAITING),
        }
        self._writing = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decision-log")
        self.lost = 0

    def decided(self, query: PlacementQuery, decision: Decision) -> None:
        """Note a decision."""
        row = {"job_id": decision.job_id, "query": query.model_dump(), "decision": decision.model_dump()}
        self._add("decisions", row)

    def ended(self, outcome: Outcome) -> None:
        """Note how a job went."""
        self._add("outcomes", {"job_id": outcome.job_id, "outcome": outcome.model_dump()})

    def _add(self, kind: Kind, row: dict[str, Any]) -> None:
        rows = self._waiting[kind]
        self.lost += len(rows) == MAX_WAITING
        rows.append(row)

    async def run(self) -> None:
        """Write what waits now and then, until cancelled."""
        while True:
            await self._clock.sleep(FLUSH_S)
            await self.flush()

    async def close(self) -> None:
        """Write what still waits; nothing can be written after it."""
        await self.flush()
        self._thread.shutdown(wait=False)

    async def flush(self) -> None:
        """Write what waits now, one file of each kind."""
        loop = asyncio.get_running_loop()
        async with self._writing:
            for kind, rows in self._waiting.items():
                if not rows:
                    continue
                taken = list(rows)
                rows.clear()
                path = self._folder / f"{kind}-{self._node_id}-{self._clock.now_ns()}.parquet"
                try:
                    await loop.run_in_executor(self._thread, _write, path, kind, taken)
                except Exception as exc:  # whatever the disk or the rows are like, decisions go on
                    self.lost += len(taken)
                    get_logger().warning("decision_log_not_written", error=str(exc), lost_so_far=self.lost)
            try:
                await loop.run_in_executor(self._thread, _keep_within, self._folder, self._max_bytes)
            except OSError as exc:
                get_logger().warning("decision_log_not_tidied", error=str(exc))


def read_log(folder: Path) -> Iterator[Logged]:
    """Everything that can be read in a folder's log, oldest first by file.

    A file that cannot be read, as one that a disk has damaged, is left out whole and named in a warning of the log of
    whoever reads; decisions whose outcomes were in it come without them.
    """
    outcomes: dict[tuple[str, str, int], Outcome] = {}
    for outcome in _read(folder, "outcomes", lambda row: Outcome.model_validate(row["outcome"])):
        outcomes[outcome.job_id, outcome.decided_by, outcome.decided_at_ns] = outcome
    for query, decision in _read(folder, "decisions", _decided):
        yield Logged(query, decision, outcomes.get((decision.job_id, decision.decided_by, decision.decided_at_ns)))


def _decided(row: dict[str, Any]) -> tuple[PlacementQuery, Decision]:
    return PlacementQuery.model_validate(row["query"]), Decision.model_validate(row["decision"])


def _read(folder: Path, kind: Kind, parse: Callable[[dict[str, Any]], Row]) -> Iterator[Row]:
    """The rows of the files of one kind. Damage shows in the file's frame, in its pages, or in rows that are none of
    this log's; a file may also be gone by now, since the oldest make room."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in _files(folder, f"{kind}-*"):
        try:
            rows = [parse(row) for row in pq.read_table(path).to_pylist()]
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as exc:
            get_logger().warning("decision_log_file_left_out", file=path.name, error=str(exc))
            continue
        yield from rows


def _files(folder: Path, pattern: str) -> list[Path]:
    """The log's own files, oldest first; others in the folder are let be."""
    own = [path for path in folder.glob(f"{pattern}.parquet") if _OWN.fullmatch(path.name)]
    return sorted(own, key=lambda path: int(path.stem.rpartition("-")[2]))


def _write(path: Path, kind: Kind, rows: list[dict[str, Any]]) -> None:
    """All or nothing; a few rows at a time, so that other threads get their turns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    scratch, schema = path.with_suffix(".part"), _schema(kind)
    try:
        with pq.ParquetWriter(scratch, schema, compression="zstd") as writer:
            for start in range(0, len(rows), ROWS_AT_ONCE):
                writer.write_table(pa.Table.from_pylist(rows[start : start + ROWS_AT_ONCE], schema=schema))
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _keep_within(folder: Path, max_bytes: int) -> None:
    """Remove the oldest of the log's files until what is left fits."""
    sizes = {path: size for path in _files(folder, "*") if (size := _size(path)) is not None}
    held = sum(sizes.values())
    for path, size in sizes.items():
        if held <= max_bytes:
            break
        held -= size
        path.unlink(missing_ok=True)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # another scheduler's log is kept in this folder, too
        return None


def _schema(kind: Kind) -> pa.Schema:
    """Columns by the fields of the logged objects; times in seconds, `*_ns` in nanoseconds."""
    import pyarrow as pa

    decisions: dict[str, type[BaseModel]] = {"query": PlacementQuery, "decision": Decision}
    logged: dict[str, type[BaseModel]] = {"outcome": Outcome} if kind == "outcomes" else decisions
    return pa.schema([("job_id", pa.string()), *((name, _column(model)) for name, model in logged.items())])


def _column(annotation: Any) -> pa.DataType:
    """The column of a field, by its annotation; a field that may be absent has the column of what it may be."""
    import pyarrow as pa

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return pa.struct([(name, _column(field.annotation)) for name, field in annotation.model_fields.items()])
    plain = {str: pa.string(), float: pa.float64(), int: pa.int64(), bool: pa.bool_()}
    if annotation in plain:
        return plain[annotation]
    origin, parts = get_origin(annotation), [part for part in get_args(annotation) if part not in (NoneType, ...)]
    if origin is Literal:
        return pa.string()
    return pa.list_(_column(parts[0])) if origin is tuple else _column(parts[0])
