"""AdaptiveGen: the public SDK. `Client` and `AsyncClient` load on first use, so importing this stays light."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adaptivegen.errors import AdaptiveGenError
    from adaptivegen.sdk.aio import AsyncClient, AsyncHandle
    from adaptivegen.sdk.client import Client, Handle

__all__ = ["AdaptiveGenError", "AsyncClient", "AsyncHandle", "Client", "Handle"]

_HOME = {
    "AdaptiveGenError": "adaptivegen.errors",
    "AsyncClient": "adaptivegen.sdk.aio",
    "AsyncHandle": "adaptivegen.sdk.aio",
    "Client": "adaptivegen.sdk.client",
    "Handle": "adaptivegen.sdk.client",
}


def __getattr__(name: str) -> object:
    """Import the public name on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'adaptivegen' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
