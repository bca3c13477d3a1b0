"""The idempotency keys whose videos this edge has told of, on its disk: a resend in a cut is no second video, also
where the edge was started anew in between.

Two files of lines, `new` and `old`: when `new` is full it takes the place of `old`, so both memory and disk are bounded
and nothing is ever rewritten. A line that is damaged (the last one, at a crash) is passed over. Decides nothing about
videos; what a key means while the edge is cut off is `accept`'s to say.
"""

from __future__ import annotations

import asyncio
import errno
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError, InvalidRequest
from adaptivegen.ids import check_video_id
from adaptivegen.jobs.store import IDEMPOTENCY_TTL_S
from adaptivegen.telemetry import get_logger
from adaptivegen.untrusted import parsed

MAX_KEYS = 16_384  # of one file: twice that many are known at most
MAX_LINE_BYTES = 1024
KEEP_S = 0.5  # that a request waits for the disk
NEW, OLD = "new", "old"


class Seen(BaseModel):
    """One key: of which tenant, for which video and body (its digest), since when by this edge's clock."""

    model_config = ConfigDict(frozen=True)

    tenant: Annotated[str, Field(max_length=63)]
    key: Annotated[str, Field(max_length=128)]
    id: str
    body: Annotated[str, Field(max_length=64)]
    at_ns: Annotated[int, Field(ge=0)]

    def encode(self) -> bytes:
        """One line as stored."""
        return self.model_dump_json().encode() + b"\n"


Keys = dict[tuple[str, str], Seen]


class SeenKeys:
    """The keys in `folder`. `open` must have returned before anything else is called."""

    def __init__(self, folder: Path, *, clock: Clock, max_keys: int = MAX_KEYS) -> None:
        self._folder = folder
        self._clock = clock
        self._max_keys = max_keys
        self._new: Keys = {}
        self._old: Keys = {}
        self._file: int | None = None
        self._lines = 0  # in `new`, with those that a later one replaces
        self._waiting: list[bytes] = []
        self._asked = self._done = 0  # lines that were to be written, and those of them that were, or could not be
        self._writing: asyncio.Future[None] | None = None
        self._hangs = False  # a write has taken longer than `KEEP_S`, and goes on
        self._said = ""
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="seen")

    async def open(self) -> None:
        """Read what is there. A disk that refuses costs only the memory of it."""
        loop = asyncio.get_running_loop()
        try:
            self._old, _ = await loop.run_in_executor(self._disk, self._read, OLD)
            self._new, self._lines = await loop.run_in_executor(self._disk, self._read, NEW)
        except OSError as exc:
            get_logger().warning("keys_not_read", folder=str(self._folder), error=str(exc))

    def find(self, tenant: str, key: str) -> Seen | None:
        """What is known of a key, for as long as the centre remembers one."""
        name = tenant, key
        seen = self._new.get(name) or self._old.get(name)
        if seen is None or self._clock.now_ns() - seen.at_ns >= IDEMPOTENCY_TTL_S * 1e9:
            return None
        return seen

    async def keep(self, tenant: str, key: str, job_id: str, body: str) -> None:
        """Remember a key, durably once this returns. Where the disk refuses, or takes longer than `KEEP_S`, that is
        said in the log, and the key is remembered for as long as this process lives: no request is refused for it. Nor
        does a second one wait for a disk that hangs: what comes meanwhile is written when it answers."""
        known = self.find(tenant, key)
        if known is None or (known.id, known.body) != (job_id, body):
            seen = Seen(tenant=tenant, key=key, id=job_id, body=body, at_ns=self._clock.now_ns())
            if len(self._new) >= self._max_keys and (tenant, key) not in self._new:
                self._old, self._new = self._new, {}
            self._new[tenant, key] = seen
            if len(self._waiting) < self._max_keys:
                self._waiting.append(seen.encode())
                self._asked += 1
        await self._written()

    async def _written(self) -> None:
        """Wait until all that was asked for before is on the disk: whoever finds nobody writing writes for all."""
        last = self._asked
        self._write()
        try:
            async with asyncio.timeout(KEEP_S):
                while self._done < last and self._writing is not None and not self._hangs:
                    await asyncio.wait({self._writing})
        except TimeoutError:
            self._hangs = True
            self._complain(f"the disk took longer than {KEEP_S:g} s")

    def _write(self) -> None:
        """Write what waits, unless somebody writes."""
        if self._writing is not None or not self._waiting:
            return
        lines, self._waiting = self._waiting, []
        self._writing = asyncio.get_running_loop().run_in_executor(self._disk, self._append, lines)
        self._writing.add_done_callback(partial(self._landed, len(lines)))

    def _landed(self, lines: int, writing: asyncio.Future[None]) -> None:
        """A write is over, well or not; the next begins."""
        self._writing, self._hangs = None, False
        self._done += lines
        if not writing.cancelled() and (error := writing.exception()) is not None:
            self._complain(str(error))
        else:
            self._said = ""
        self._write()

    def _complain(self, why: str) -> None:
        """Log, once for as long as it lasts."""
        if why != self._said:
            get_logger().warning("keys_not_kept", folder=str(self._folder), error=why)
        self._said = why

    async def close(self) -> None:
        """Let go of the file, when what is being written is there."""
        await self._written()
        lines, self._waiting = self._waiting, []  # of a disk that hangs
        if lines:
            self._disk.submit(self._append, lines)
        self._disk.submit(self._let_go)
        self._disk.shutdown(wait=False)

    # ---- the disk, in the one thread of the executor ----------------------------------------------------------

    def _read(self, name: str) -> tuple[Keys, int]:
        """The keys of a file, and how many lines it has."""
        found: Keys = {}
        damaged = 0
        try:
            lines = (self._folder / name).read_bytes().splitlines()
        except FileNotFoundError:
            return {}, 0
        for line in filter(None, lines):
            try:
                seen = _parsed(line)
            except AdaptiveGenError:
                damaged += 1
            else:
                found[seen.tenant, seen.key] = seen
        if damaged:
            get_logger().warning("keys_damaged", file=name, lines=damaged, of=len(lines))
        return found, len(lines)

    def _append(self, lines: list[bytes]) -> None:
        """Write and sync; in a new file where this one is full. A line that was cut off before ends here."""
        if self._lines >= self._max_keys:
            self._let_go()
            (self._folder / NEW).replace(self._folder / OLD)
            self._lines = 0
        if self._file is None:
            self._file = self._opened()
            lines = [b"\n", *lines] if self._lines else lines
        self._lines += len(lines)
        data = b"".join(lines)
        try:
            if os.write(self._file, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(self._file)
        except OSError:
            self._let_go()  # what of it is there is not known: the next begins with an end of line
            raise

    def _opened(self) -> int:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(self._folder / NEW, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)  # of a file that was made now, the name
        finally:
            os.close(folder)
        return file

    def _let_go(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def _parsed(line: bytes) -> Seen:
    """Raises InvalidRequest for what is no line of these."""
    if len(line) > MAX_LINE_BYTES:
        raise InvalidRequest.field("line", f"{len(line)} bytes", f"at most {MAX_LINE_BYTES} bytes")
    seen = parsed(Seen, line, name="seen")
    check_video_id(seen.id)
    return seen
