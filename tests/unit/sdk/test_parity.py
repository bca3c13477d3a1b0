"""The two clients offer the same, and importing the package stays light."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import adaptivegen
from adaptivegen.sdk import aio, client

PAIRS = [(client.Client, aio.AsyncClient), (client.Handle, aio.AsyncHandle), (client.Result, aio.AsyncResult)]
ONLY_BLOCKING = {"pause"}  # how to block; an asyncio client does not


def public(cls: type) -> dict[str, list[tuple[str, object, object]]]:
    """Public methods of a class with their parameters: name, kind and default."""
    methods = {name: value for name, value in inspect.getmembers(cls, callable) if not name.startswith("_")}
    methods["__init__"] = cls.__init__  # type: ignore[misc]
    return {
        name: [
            (p.name, p.kind, p.default)
            for p in inspect.signature(method).parameters.values()
            if p.name not in ONLY_BLOCKING
        ]
        for name, method in methods.items()
    }


@pytest.mark.parametrize(("blocking", "asynchronous"), PAIRS)
def test_both_clients_have_the_same_methods_and_parameters(blocking: type, asynchronous: type) -> None:
    assert public(blocking) == public(asynchronous)


@pytest.mark.parametrize("cls", [cls for pair in PAIRS for cls in pair])
def test_every_public_method_says_what_it_does(cls: type) -> None:
    assert [name for name, method in inspect.getmembers(cls, callable) if name[0] != "_" and not method.__doc__] == []


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ["httpx", "grpc", "nats", "torch", "onnxruntime", "aiohttp", "numpy", "pydantic"]
    code = f"import sys, adaptivegen; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_client_itself_loads_no_server_code() -> None:
    heavy = ["grpc", "nats", "torch", "onnxruntime", "aiohttp", "numpy", "av", "obstore"]
    code = f"import sys, adaptivegen; adaptivegen.Client; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_public_names_are_the_clients() -> None:
    assert adaptivegen.Client is client.Client and adaptivegen.AsyncHandle is aio.AsyncHandle
    with pytest.raises(AttributeError, match="Clientele"):
        _ = adaptivegen.Clientele
