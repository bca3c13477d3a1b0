"""Reading request bodies that may lie: bounded, deadlined, strictly parsed JSON or a multipart form.

Decides what of a body becomes fields and what becomes the upload. Raises typed errors; never reads more than the limit.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import math
from dataclasses import dataclass
from typing import Any, NoReturn

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from adaptivegen.errors import DeadlineExceeded, InvalidRequest, PayloadTooLarge, UnsupportedMedia

BODY_DEADLINE_S = 30.0
MAX_JSON_BYTES = 64 * 1024 * 1024
UPLOAD_FIELD = "input_reference"


@dataclass(frozen=True, slots=True)
class CreateBody:
    """The fields of a create request and its upload."""

    values: dict[str, object]
    upload: bytes | None


def bounded(receive: Receive, max_bytes: int) -> Receive:
    """A `receive` that refuses more than `max_bytes` of body, whatever Content-Length said."""
    seen = 0

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > max_bytes:
            raise PayloadTooLarge(f"the body has over {max_bytes} bytes", param="body")
        return message

    return limited


async def read_create(request: Request, *, max_bytes: int) -> CreateBody:
    """Fields and upload of `POST /v1/videos`."""
    _refuse_encoding(request)
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise PayloadTooLarge(f"the body has {declared} bytes; allowed: {max_bytes}", param="body")
    limited = Request(request.scope, bounded(request.receive, max_bytes))
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            if kind == "multipart/form-data":
                return await _read_form(limited)
            if kind in ("application/json", ""):
                return _from_json(parse_json(await limited.body()))
    except TimeoutError as exc:
        raise DeadlineExceeded(f"the body did not arrive within {BODY_DEADLINE_S:g} s") from exc
    except ClientDisconnect as exc:
        raise InvalidRequest("the body ended before its Content-Length", param="body") from exc
    raise InvalidRequest.field("content-type", kind, "application/json or multipart/form-data")


async def read_json(request: Request, *, max_bytes: int = 64 * 1024) -> dict[str, object]:
    """A small JSON object."""
    _refuse_encoding(request)
    limited = Request(request.scope, bounded(request.receive, max_bytes))
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            return parse_json(await limited.body())
    except TimeoutError as exc:
        raise DeadlineExceeded(f"the body did not arrive within {BODY_DEADLINE_S:g} s") from exc
    except ClientDisconnect as exc:
        raise InvalidRequest("the body ended before its Content-Length", param="body") from exc


def parse_json(data: bytes) -> dict[str, object]:
    """A JSON object without duplicate keys, NaN or infinities."""
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
    except UnicodeDecodeError as exc:
        raise InvalidRequest("the body is not UTF-8", param="body") from exc
    except RecursionError as exc:
        raise InvalidRequest("the body is nested too deeply", param="body") from exc
    except ValueError as exc:
        raise InvalidRequest(f"the body is not valid JSON: {exc}", param="body") from exc
    if not isinstance(value, dict):
        raise InvalidRequest.field("body", value, "a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise InvalidRequest.field("body", next(n for n in names if names.count(n) > 1), "each key once")
    return found


def _no_constant(name: str) -> NoReturn:
    raise InvalidRequest.field("body", name, "finite numbers")


def _finite(digits: str) -> float:
    """`1e999` is a number in JSON, and infinite as a float."""
    value = float(digits)
    return value if math.isfinite(value) else _no_constant(digits)


def _from_json(values: dict[str, object]) -> CreateBody:
    reference = values.pop(UPLOAD_FIELD, None)
    return CreateBody(values=values, upload=None if reference is None else _data_url(reference))


def _data_url(reference: object) -> bytes:
    """The bytes of {"image_url": "data:...;base64,..."}; other URLs are not fetched."""
    url = reference.get("image_url") if isinstance(reference, dict) else None
    if not isinstance(url, str) or not url.startswith("data:") or ";base64," not in url[:256]:
        raise InvalidRequest.field(UPLOAD_FIELD, reference, 'a file, or {"image_url": "data:<type>;base64,<data>"}')
    try:
        return base64.b64decode(url.partition(";base64,")[2], validate=True)
    except (binascii.Error, ValueError) as exc:
        raise UnsupportedMedia(f"{UPLOAD_FIELD} is not valid base64", param=UPLOAD_FIELD) from exc


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


def _refuse_encoding(request: Request) -> None:
    encoding = request.headers.get("content-encoding")
    if encoding not in (None, "", "identity"):
        raise InvalidRequest.field("content-encoding", encoding, "identity")
