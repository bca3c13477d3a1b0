"""What a service and its model child say to each other. Pure: plain data to and from JSON headers and binary parts.

    parent -> child   generate {request, fps, strength, task, want_looks} + start (MP4, optional)
                      cancel   {request_id}
    child -> parent   ready    {model, load_ms} | failed {error}
                      step     {request_id, step, steps, stage} + look (JPEG)
                      done     {request_id, width, height, frames, generate_ms, encode_ms, familiarity} + MP4
                      error    {request_id, error}

A start clip is the bytes of an MP4 that one of our own processes encoded.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from adaptivegen.errors import AdaptiveGenError, from_wire
from adaptivegen.models.base import GenerationInput, Task


@dataclass(frozen=True, slots=True)
class GenerateCommand:
    """One generation. `strength` is t0 of the start clip; `want_looks` asks for a JPEG per step."""

    request_id: str
    request: GenerationInput
    fps: int
    strength: float | None = None
    task: Task = "restyle"
    want_looks: bool = False

    def header(self) -> dict[str, Any]:
        """The JSON header."""
        return {"type": "generate", **asdict(self)}

    @classmethod
    def from_header(cls, header: dict[str, Any]) -> GenerateCommand:
        """Back from the header."""
        values = {name: header[name] for name in cls.__slots__ if name != "request"}
        return cls(request=GenerationInput(**header["request"]), **values)


@dataclass(frozen=True, slots=True)
class Step:
    """`step` of `steps` of a stage are done. `look_jpeg` is a frame of the clip as it stands, or empty."""

    step: int
    steps: int
    stage: str
    look_jpeg: bytes = b""


@dataclass(frozen=True, slots=True)
class Generated:
    """A finished clip as MP4, with its shape and the child's own times in milliseconds.

    familiarity: see `StepReport`.
    """

    mp4: bytes
    width: int
    height: int
    frames: int
    generate_ms: float
    encode_ms: float
    familiarity: float | None = None


def error_header(error: AdaptiveGenError, request_id: str = "") -> dict[str, Any]:
    """An error for the parent."""
    return {"type": "error" if request_id else "failed", "request_id": request_id, "error": error.body()}


def raised(header: dict[str, Any]) -> AdaptiveGenError:
    """The error a header carries, as its own class."""
    error = header["error"]
    return from_wire(str(error["code"]), str(error["message"]), param=error.get("param"))
