"""Reading request bodies that may lie: JSON (`adaptivegen.http_json`) or a multipart form.

Decides what of a body becomes fields and what becomes the upload, and how many large bodies may be in memory. Raises
typed errors; never reads more than the limit. What takes long to decode is decoded in threads, so that the loop, and
with it every other stream and draft, goes on.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from adaptivegen.errors import InvalidRequest, PayloadTooLarge, ResourceExhausted, UnsupportedMedia
from adaptivegen.http_json import BODY_DEADLINE_S, arriving, bounded, parse_json, read_json, refuse_encoding

SMALL_BYTES = 256 * 1024  # below this a body needs no seat and no thread: the number of connections bounds their sum
LARGE_BODIES = 4  # in memory at once
FULL_RETRY_S = 1.0
DECODED_AT_ONCE = 1024 * 1024  # base64 digits in one call, which holds the interpreter; a multiple of four
Result = TypeVar("Result")
UPLOAD_FIELD = "input_reference"


@dataclass(frozen=True, slots=True)
class CreateBody:
    """The fields of a create request and its upload."""

    values: dict[str, object]
    upload: bytes | None


class Bodies:
    """The request bodies of one edge. A body that may exceed `SMALL_BYTES` needs one of `large` seats, and keeps it for
    as long as its upload is in memory."""

    def __init__(self, *, max_bytes: int, large: int = LARGE_BODIES, deadline_s: float = BODY_DEADLINE_S) -> None:
        self._max_bytes = max_bytes
        self._large = large
        self._deadline_s = deadline_s
        self._seated = 0
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="body")

    @asynccontextmanager
    async def create(self, request: Request) -> AsyncIterator[CreateBody]:
        """Fields and upload of `POST /v1/videos`, for the block. Raises ResourceExhausted before anything is read when
        all seats are taken, and what `read_create` raises."""
        seats = 0 if (declared := _declared_bytes(request)) is not None and declared <= SMALL_BYTES else 1
        if self._seated + seats > self._large:
            raise ResourceExhausted(f"{self._large} large bodies are being read", retry_after_s=FULL_RETRY_S)
        self._seated += seats
        try:
            yield await read_create(
                request, max_bytes=self._max_bytes, deadline_s=self._deadline_s, threads=self._threads
            )
        finally:
            self._seated -= seats

    async def json(self, request: Request) -> dict[str, object]:
        """A small JSON object."""
        return await read_json(request, deadline_s=self._deadline_s)


async def read_create(
    request: Request, *, max_bytes: int, deadline_s: float = BODY_DEADLINE_S, threads: Executor | None = None
) -> CreateBody:
    """Fields and upload of `POST /v1/videos`; without `threads` everything is decoded here."""
    refuse_encoding(request)
    declared = _declared_bytes(request)
    if declared is not None and declared > max_bytes:
        raise PayloadTooLarge(f"the body has {declared} bytes; allowed: {max_bytes}", param="body")
    limited = Request(request.scope, bounded(request.receive, max_bytes))
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        async with arriving(deadline_s):
            return await _read_form(limited)
    if kind in ("application/json", ""):
        async with arriving(deadline_s):
            data = await limited.body()
        return await _decoded(threads if len(data) > SMALL_BYTES else None, lambda: _from_json(parse_json(data)))
    raise InvalidRequest.field("content-type", kind, "application/json or multipart/form-data")


async def _decoded(threads: Executor | None, work: Callable[[], Result]) -> Result:
    return work() if threads is None else await asyncio.get_running_loop().run_in_executor(threads, work)


def _declared_bytes(request: Request) -> int | None:
    """What Content-Length says; None for a body sent in chunks, or a length that is none."""
    declared = request.headers.get("content-length", "")
    return int(declared[:19]) if declared.isascii() and declared.isdigit() else None


def _from_json(values: dict[str, object]) -> CreateBody:
    reference = values.pop(UPLOAD_FIELD, None)
    return CreateBody(values=values, upload=None if reference is None else _data_url(reference))


def _data_url(reference: object) -> bytes:
    """The bytes of {"image_url": "data:...;base64,..."}; other URLs are not fetched."""
    url = reference.get("image_url") if isinstance(reference, dict) else None
    if not isinstance(url, str) or not url.startswith("data:") or ";base64," not in url[:256]:
        raise InvalidRequest.field(UPLOAD_FIELD, reference, 'a file, or {"image_url": "data:<type>;base64,<data>"}')
    try:
        return _from_base64(url.partition(";base64,")[2])
    except (binascii.Error, ValueError) as exc:
        raise UnsupportedMedia(f"{UPLOAD_FIELD} is not valid base64", param=UPLOAD_FIELD) from exc


def _from_base64(digits: str) -> bytes:
    """Strictly decoded, in steps, so that other threads have their turn. Padding ends the data."""
    steps = [digits[at : at + DECODED_AT_ONCE] for at in range(0, len(digits), DECODED_AT_ONCE)]
    if any(step.endswith("=") for step in steps[:-1]):
        raise ValueError("padding in the middle")
    return b"".join(base64.b64decode(step, validate=True) for step in steps)


async def _read_form(request: Request) -> CreateBody:
    values: dict[str, object] = {}
    upload: bytes | None = None
    try:
        async with request.form(max_files=1, max_fields=32, max_part_size=64 * 1024) as form:
            for name, value in form.multi_items():
                if name in values or (name == UPLOAD_FIELD and upload is not None):
                    raise InvalidRequest.field("body", name, "each field once")
                if isinstance(value, UploadFile):
                    if name != UPLOAD_FIELD:
                        raise InvalidRequest.field(name, value.filename, f"no file (files go in {UPLOAD_FIELD})")
                    upload = await value.read()
                else:
                    values[name] = value
    except HTTPException as exc:
        raise InvalidRequest(f"the form cannot be read: {exc.detail}", param="body") from exc
    if UPLOAD_FIELD in values:
        raise InvalidRequest.field(UPLOAD_FIELD, values[UPLOAD_FIELD], "a file part with a file name")
    return CreateBody(values=values, upload=upload)
