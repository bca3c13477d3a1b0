"""Fixtures for all tests."""

from collections.abc import Iterator

import pytest

from adaptivegen.telemetry import reset_logging
from tests.servers import NatsServer, nats_server


@pytest.fixture(scope="session")
def shared_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One real nats-server for all tests that only need a broker; use names of your own in it."""
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
def nats_url(shared_nats: NatsServer) -> str:
    """URL of the shared nats-server."""
    return shared_nats.url


@pytest.fixture
def own_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A nats-server of this test's own, to be killed and restarted."""
    with nats_server(tmp_path_factory.mktemp("own-nats")) as server:
        yield server


@pytest.fixture(autouse=True)
def plain_logs() -> Iterator[None]:
    """A service that runs in a test's process configures its logs, which are the process's; no other test sees that."""
    yield
    reset_logging()
