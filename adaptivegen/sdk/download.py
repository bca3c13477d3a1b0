"""One clip over as many connections as it takes, checked against its digest. Pure: answers in, bytes to keep out.

Decides what to ask for next and where received bytes belong; writes nothing itself.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from adaptivegen.errors import StorageFailure
from adaptivegen.sdk.models import Clip
from adaptivegen.sdk.routes import Call, Variant, content_call

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class Download:
    """The state of a download: `offset` bytes are kept so far."""

    def __init__(self, video_id: str, clip: Clip, variant: Variant) -> None:
        self._video_id = video_id
        self._clip = clip
        self._variant: Variant = variant
        self._digest = hashlib.sha256()
        self._skip = 0
        self.offset = 0

    @property
    def complete(self) -> bool:
        """Whether every byte is there."""
        return self.offset >= self._clip.size_bytes

    def call(self) -> Call:
        """What to ask for next."""
        return content_call(self._video_id, variant=self._variant, offset=self.offset, sha256=self._clip.sha256)

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Take the head of an answer. One that begins at the start again is taken too, and what is kept skipped."""
        self._skip = 0
        if status != 206:
            self._skip = self.offset
            return
        match = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
        if match is None or int(match[1]) != self.offset:
            found = headers.get("content-range", "no Content-Range")
            raise StorageFailure(f"asked for the bytes from {self.offset}, got {found!r}")

    def feed(self, chunk: bytes) -> bytes:
        """The part of the next bytes that is new; counted and digested. Raises StorageFailure for more than the clip
        has."""
        new = chunk[self._skip :]
        self._skip -= len(chunk) - len(new)
        self.offset += len(new)
        if self.offset > self._clip.size_bytes:
            raise StorageFailure(f"got more than the {self._clip.size_bytes} bytes the clip has")
        self._digest.update(new)
        return new

    def check(self) -> None:
        """Raise StorageFailure unless the bytes have the digest the video names."""
        digest = self._digest.hexdigest()
        if digest != self._clip.sha256:
            raise StorageFailure(
                f"the {self._variant} of {self._video_id} has digest {digest}, not {self._clip.sha256}"
            )
