"""The broker adapters that the contract is asked of."""

import uuid
from collections.abc import AsyncIterator

import pytest

from adaptivegen.bus.base import Bus
from adaptivegen.bus.memory import MemoryBus
from adaptivegen.bus.nats import NatsBus
from adaptivegen.clock import SystemClock


@pytest.fixture(params=["memory", "nats"])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    made: Bus
    if request.param == "memory":
        made = MemoryBus(SystemClock())
    else:
        made = NatsBus([request.getfixturevalue("nats_url")], name="contract")
    await made.start()
    yield made
    await made.close()


@pytest.fixture
def name() -> str:
    """A name of this test's own in the shared server."""
    return f"n{uuid.uuid4().hex[:12]}"
