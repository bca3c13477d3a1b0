"""One system shared by the tests that do not break it."""

from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.system import UpSystem, up


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpSystem]:
    """Two edges, one worker, started once."""
    with up(tmp_path_factory.mktemp("system"), edges=2) as started:
        yield started


@pytest.fixture
def edge(system: UpSystem) -> Iterator[httpx.Client]:
    """The first edge."""
    with system.client(0) as client:
        yield client


@pytest.fixture
def other_edge(system: UpSystem) -> Iterator[httpx.Client]:
    """The second edge."""
    with system.client(1) as client:
        yield client
