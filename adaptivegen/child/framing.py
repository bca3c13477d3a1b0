"""Messages between a parent and its child. Sans-I/O: bytes in, messages out.

    4 bytes   length of the header, big-endian
    header    JSON object; `_parts` lists [name, length] of the binary parts that follow
    parts     the bytes, in that order

A part is bytes or a contiguous memoryview (`array.data` of a numpy array): it is sent as it lies in memory and arrives
as bytes; what shape and dtype it has is the header's business. Limits keep a broken peer from making the other
allocate without end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from adaptivegen.errors import InternalError

MAX_HEADER_BYTES = 1024 * 1024
MAX_PARTS_BYTES = 512 * 1024 * 1024
Parts: TypeAlias = Mapping[str, bytes | memoryview]
Message: TypeAlias = tuple[dict[str, Any], dict[str, bytes]]


def encode(header: Mapping[str, Any], parts: Parts) -> list[memoryview]:
    """The pieces of one message, in order; parts are not copied. Raises InternalError beyond the limits."""
    views = {name: _flat(memoryview(part)) for name, part in parts.items()}
    total = sum(view.nbytes for view in views.values())
    if total > MAX_PARTS_BYTES:
        raise InternalError(f"message parts of {total} bytes; allowed: {MAX_PARTS_BYTES}")
    listed = [[name, view.nbytes] for name, view in views.items()]
    head = json.dumps({**header, "_parts": listed}, separators=(",", ":")).encode()
    if len(head) > MAX_HEADER_BYTES:
        raise InternalError(f"message header has {len(head)} bytes; allowed: {MAX_HEADER_BYTES}")
    return [memoryview(len(head).to_bytes(4, "big") + head), *views.values()]


def _flat(view: memoryview) -> memoryview:
    return view.cast("B") if view.nbytes else memoryview(b"")  # an empty view of several dimensions cannot be cast


def decode_length(data: bytes) -> int:
    """The header's length from its 4 bytes; raises InternalError beyond the limit."""
    length = int.from_bytes(data, "big")
    if not 2 <= length <= MAX_HEADER_BYTES:
        raise InternalError(f"message header of {length} bytes; allowed: 2 to {MAX_HEADER_BYTES}")
    return length


def decode_header(data: bytes) -> tuple[dict[str, Any], list[tuple[str, int]]]:
    """The header and the names and lengths of the parts; raises InternalError when malformed."""
    try:
        header = json.loads(data)
        listed = [(str(name), int(length)) for name, length in header.pop("_parts")]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
        raise InternalError(f"malformed message header: {data[:80]!r}") from exc
    total = sum(length for _, length in listed)
    if any(length < 0 for _, length in listed) or total > MAX_PARTS_BYTES:
        raise InternalError(f"message parts of {total} bytes; allowed: {MAX_PARTS_BYTES}")
    return header, listed
