"""Untrusted uploads: what kind they are by their first bytes, and their decoding in a child with limits.

Decides what is let in: PNG, JPEG, WebP, MP4/MOV and WebM, recognised by content, never by name or declared type.
Playlists, concat scripts, SVG and everything else are refused unread. The child (`upload_child`) has limits on CPU
time, memory, open files, pixels and frames, an empty environment (no secrets to find), decoders from a short list, no
protocol to open a path or URL with, and answers with an MP4 of our own making.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import asdict, dataclass
from typing import Literal

from adaptivegen.child.parent import ChildProcess
from adaptivegen.errors import (
    AdaptiveGenError,
    GenerationFailed,
    InternalError,
    PayloadTooLarge,
    UnsupportedMedia,
    from_wire,
)

Kind = Literal["image", "video"]
FIELD = "input_reference"


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What one decoding may use. `cpu_s` and `wall_s` in seconds, memory in bytes beyond what the child starts with."""

    max_bytes: int = 32 * 1024 * 1024
    max_pixels: int = 4096 * 4096
    max_frames: int = 600
    cpu_s: int = 20
    wall_s: float = 30.0
    memory_bytes: int = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class Target:
    """The clip a reference becomes: cropped to fill, resampled in time."""

    width: int
    height: int
    frames: int
    fps: int


@dataclass(frozen=True, slots=True)
class Upload:
    """A decoded reference as MP4 of the target's shape."""

    kind: Kind
    mp4: bytes


def sniff(data: bytes) -> tuple[Kind, str]:
    """Kind and format ("png", "jpeg", "webp", "mp4", "matroska") by content; raises UnsupportedMedia."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image", "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image", "jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image", "webp"
    if data[4:8] == b"ftyp":
        return "video", "mp4"
    if data.startswith(b"\x1a\x45\xdf\xa3") and b"\x42\x82\x84webm" in data[:64]:  # element DocType, 4 bytes, "webm"
        return "video", "matroska"
    raise UnsupportedMedia(f"{FIELD} starts with {data[:8]!r}; allowed: PNG, JPEG, WebP, MP4, MOV, WebM", param=FIELD)


async def decode_upload(data: bytes, target: Target, *, limits: UploadLimits) -> Upload:
    """Decode in a child of its own. Raises UnsupportedMedia for what cannot be decoded, PayloadTooLarge for what is too
    much of it (bytes, pixels, frames, time or memory)."""
    if len(data) > limits.max_bytes:
        raise PayloadTooLarge(f"{FIELD} has {len(data)} bytes; allowed: {limits.max_bytes}", param=FIELD)
    kind, form = sniff(data)
    child = ChildProcess("adaptivegen.media.upload_child", [], env={"PYTHONPATH": os.pathsep.join(sys.path)})
    try:
        async with asyncio.timeout(limits.wall_s):
            await child.start()
            await child.send(
                {"kind": kind, "form": form, "target": asdict(target), "limits": asdict(limits)}, {"data": data}
            )
            header, parts = await child.receive()
    except TimeoutError as exc:
        raise PayloadTooLarge(f"{FIELD} took over {limits.wall_s:g} s to decode", param=FIELD) from exc
    except (GenerationFailed, InternalError) as exc:
        raise _death(child.returncode) from exc
    finally:
        await child.kill()
    if header.get("type") == "done" and "mp4" in parts:
        return Upload(kind=kind, mp4=parts["mp4"])
    raise _refusal(header.get("error"))


def _death(returncode: int | None) -> AdaptiveGenError:
    """Ended by the kernel for the CPU time it used or the memory it took, or crashed on what it was given."""
    if returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return PayloadTooLarge(f"{FIELD} needs more CPU time or memory than allowed to decode", param=FIELD)
    return UnsupportedMedia(f"{FIELD} made its decoder fail (status {returncode})", param=FIELD)


def _refusal(error: object) -> AdaptiveGenError:
    """The error a child sent; it read untrusted data, so its answer is not trusted to be well-formed either."""
    if isinstance(error, dict) and isinstance(error.get("code"), str) and isinstance(error.get("message"), str):
        return from_wire(error["code"], error["message"], param=FIELD)
    return UnsupportedMedia(f"{FIELD} made its decoder answer nonsense", param=FIELD)
