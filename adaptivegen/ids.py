"""Ids: how they are made and what may become a subject, a key or a path.

Pure. A video id is `vid_` and 26 lower-case base-32 characters (a ULID: 48 bits of milliseconds, 80 random bits),
so ids sort by creation time. Every id from outside passes `check_*` before it is used in a NATS subject, a KV key, an
object key or a file name; the patterns leave out dots, wildcards, slashes, blanks and look-alikes.
"""

from __future__ import annotations

import random
import re

from adaptivegen.errors import InvalidRequest

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32, lower case
_VIDEO_ID = re.compile(r"vid_[0-9a-hjkmnp-tv-z]{26}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_IDEMPOTENCY_KEY = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def new_video_id(*, now_ns: int, rng: random.Random) -> str:
    """A new video id from wall time and 80 random bits."""
    value = ((now_ns // 1_000_000) << 80) | rng.getrandbits(80)
    return "vid_" + "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -5, -5))


def made_at_ns(video_id: str) -> int:
    """When a legal video id was made, in wall nanoseconds, to the millisecond."""
    value = 0
    for letter in video_id.removeprefix("vid_"):
        value = value << 5 | _ALPHABET.index(letter)
    return (value >> 80) * 1_000_000


def new_token(*, prefix: str, rng: random.Random, bits: int = 80) -> str:
    """A random token such as a request id: prefix, underscore, base-32 characters."""
    value = rng.getrandbits(bits)
    return f"{prefix}_" + "".join(_ALPHABET[(value >> shift) & 31] for shift in range(0, bits, 5))


def _check(pattern: re.Pattern[str], field: str, value: str, limit: str) -> str:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise InvalidRequest.field(field, value, limit)
    return value


def check_video_id(value: str, *, field: str = "id") -> str:
    """Return `value` if it is a video id; raises InvalidRequest."""
    return _check(_VIDEO_ID, field, value, "vid_ and 26 characters of lower-case base 32")


def check_name(value: str, *, field: str) -> str:
    """Return `value` if it can name a node, tenant, pool or model; raises InvalidRequest."""
    return _check(_NAME, field, value, "1 to 63 characters of a-z, 0-9, _ and -, starting with a letter or digit")


def check_idempotency_key(value: str) -> str:
    """Return `value` if it is a legal idempotency key; raises InvalidRequest."""
    return _check(_IDEMPOTENCY_KEY, "idempotency_key", value, "1 to 128 characters of A-Z, a-z, 0-9, _ . -")


def check_sha256(value: str, *, field: str = "sha256") -> str:
    """Return `value` if it is a lower-case hex SHA-256; raises InvalidRequest."""
    return _check(_SHA256, field, value, "64 lower-case hexadecimal digits")
