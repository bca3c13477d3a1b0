"""What a node was told last, in a small file of its own, so that it knows it after a restart: whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from adaptivegen.errors import AdaptiveGenError
from adaptivegen.telemetry import get_logger
from adaptivegen.untrusted import parsed

Model = TypeVar("Model", bound=BaseModel)


def remembered(kind: type[Model], path: Path, *, name: str) -> Model | None:
    """What a node has kept; None where that is missing or damaged."""
    try:
        return parsed(kind, path.read_bytes(), name=name)
    except FileNotFoundError:
        return None
    except (OSError, AdaptiveGenError) as exc:
        get_logger().warning(f"kept_{name}_unreadable", path=str(path), error=str(exc))
        return None


def remember(path: Path, data: bytes, *, name: str) -> None:
    """Keep it, synced; a disk that refuses costs only the memory of it."""
    new = path.with_suffix(".new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as exc:
        get_logger().warning(f"{name}_not_kept", path=str(path), error=str(exc))
