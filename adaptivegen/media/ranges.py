"""Byte ranges and validators of HTTP (RFC 9110), one range at a time. Pure; used by the edge and the cache alike."""

from __future__ import annotations

import re
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")


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
        """The Content-Range header of a 206."""
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

    A malformed Range is ignored (200), as RFC 9110 asks; a well-formed one that lies outside, is inverted, or names
    several parts is refused (416). If-Range must match the strong tag, else the whole is sent.
    """
    whole = ByteRange(0, size, size)
    if if_none_match is not None and _matches(if_none_match, etag):
        return Answer(304, ByteRange(0, 0, size))
    if range_header is None or (if_range is not None and if_range.strip() != etag):
        return Answer(200, whole)
    if not range_header.startswith("bytes="):
        return Answer(200, whole)
    if "," in range_header:
        return Answer(416, ByteRange(0, 0, size))
    match = _RANGE.fullmatch(range_header.replace(" ", ""))
    if match is None or match.group(0) == "bytes=-":
        return Answer(200, whole)
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return Answer(416, ByteRange(0, 0, size))
    if start >= end:
        return Answer(416, ByteRange(0, 0, size))
    return Answer(206, ByteRange(start, end, size))


def _matches(if_none_match: str, etag: str) -> bool:
    """Weak comparison against a list of tags or `*`."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag in tags
