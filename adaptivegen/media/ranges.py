"""Byte ranges and validators of HTTP (RFC 9110), one range at a time. Pure; used by the edge and the cache alike."""

from __future__ import annotations

import re
from dataclasses import dataclass

_RANGE = re.compile(r"[ \t]*([0-9]*)-([0-9]*)[ \t]*")
MAX_DIGITS = 19  # a position that needs more is no position of any file


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes [start, end) of `size`."""

    start: int
    end: int
    size: int

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.end - self.start

    @property
    def content_range(self) -> str:
        """The Content-Range header of a 206, or of a 416 when the range is empty."""
        if self.length == 0:
            return f"bytes */{self.size}"
        return f"bytes {self.start}-{self.end - 1}/{self.size}"


@dataclass(frozen=True, slots=True)
class Answer:
    """How to answer a GET: the status, and the bytes to send (none for 304 and 416)."""

    status: int
    range: ByteRange


def etag_of(sha256: str) -> str:
    """The strong entity tag of content-addressed bytes."""
    return f'"{sha256}"'


def answer(
    *,
    size: int,
    etag: str,
    range_header: str | None,
    if_range: str | None = None,
    if_none_match: str | None = None,
) -> Answer:
    """Decide 200, 206, 304 or 416.

    A Range that is malformed or in another unit is ignored (200), as RFC 9110 asks; a well-formed one that lies
    outside, is inverted, names several parts or needs more than 19 digits is refused (416). If-Range must match the
    strong tag, else the whole is sent.
    """
    nothing = Answer(416, ByteRange(0, 0, size))
    if if_none_match is not None and _matches(if_none_match, etag):
        return Answer(304, ByteRange(0, 0, size))
    whole = Answer(200, ByteRange(0, size, size))
    if range_header is None or (if_range is not None and if_range.strip() != etag):
        return whole
    unit, _, spec = range_header.partition("=")
    if unit.strip().lower() != "bytes":
        return whole
    if "," in spec:
        return nothing
    match = _RANGE.fullmatch(spec)
    if match is None or not (match[1] or match[2]):
        return whole
    found = _resolve(match[1], match[2], size)
    return nothing if found is None else Answer(206, found)


def _resolve(first: str, last: str, size: int) -> ByteRange | None:
    """The bytes that `first-last` names (one of the two may be empty), or None when there are none."""
    if max(len(first), len(last)) > MAX_DIGITS:
        return None
    if not first:
        start, end = max(0, size - int(last)), size
    elif last and int(last) < int(first):
        return None
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
    return ByteRange(start, end, size) if start < end else None


def _matches(if_none_match: str, etag: str) -> bool:
    """Weak comparison against a list of tags or `*`."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag in tags
