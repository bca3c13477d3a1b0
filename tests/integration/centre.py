"""A centre that can be taken away: a nats-server and a folder of objects of a test's own, and edges that spool."""

import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from adaptivegen.blob.store import open_store
from adaptivegen.discovery.base import Endpoint
from adaptivegen.jobs.store import JobMessage, JobStore
from cli.system.ports import free_ports
from edge_node.service import serve as serve_edge
from edge_node.settings import EdgeSettings
from tests.integration.real_nodes import CLOCK, Node, answering, broker, on_loopback, service, until
from tests.servers import NatsServer

PROMPT = "a red circle moves left over a sunset sky"


class Centre:
    """Broker and store, each of which can be away."""

    def __init__(self, nats: NatsServer, folder: Path) -> None:
        self.nats = nats
        self.folder = folder
        self.store = folder / "store"
        self._away = folder / "store.away"

    def cut_store(self) -> None:
        """Nothing can be read from the store or written to it: its folder is a file."""
        self.store.rename(self._away)
        self.store.write_text("no folder")

    def heal_store(self) -> None:
        self.store.unlink()
        self._away.rename(self.store)

    def cut(self, what: str) -> None:
        """`broker`, `store`, `both`, or the store's `folder`, of which nothing is left."""
        if what in ("broker", "both"):
            self.nats.kill()
        if what in ("store", "both"):
            self.cut_store()
        if what == "folder":
            self.store.rename(self._away)

    def heal(self, what: str) -> None:
        if what in ("store", "both"):
            self.heal_store()
        if what == "folder":
            self._away.rename(self.store)
        if what in ("broker", "both"):
            self.nats.start()

    @asynccontextmanager
    async def jobs(self) -> AsyncIterator[JobStore]:
        """The jobs as another node sees them."""
        async with broker(self.nats.url) as bus:
            yield JobStore(blob=open_store(f"file://{self.store}"), bus=bus, clock=CLOCK)

    async def messages(self) -> list[str]:
        """The ids in the default pool's queue, which is empty after this."""
        async with broker(self.nats.url) as bus:
            queue = await bus.work_queue("default", ack_wait_s=30)
            found = []
            while (delivery := await queue.pull(timeout_s=0.3)) is not None:
                found.append(JobMessage.decode(delivery.data).id)
                await delivery.ack()
            return found


class Ports:
    """Where an edge listens, life after life, and its environment."""

    def __init__(self, centre: Centre, node_id: str = "edge-1", **changes: Any) -> None:
        http, grpc = free_ports(2)
        self.endpoint = Endpoint("edge", node_id, http_url=f"http://127.0.0.1:{http}", grpc_address=f"127.0.0.1:{grpc}")
        nodes = centre.folder / "nodes.json"
        nodes.write_text('{"endpoints": []}')
        own = {
            "discovery": f"static:{nodes}",
            "http_port": http,
            "grpc_port": grpc,
            "spool_dir": centre.folder / f"spool-{node_id}",
            **changes,
        }
        self.settings = on_loopback(centre.nats.url, centre.folder, node_id, own)

    @property
    def spool(self) -> Path:
        return Path(self.settings["spool_dir"])

    def environment(self) -> dict[str, str]:
        return {f"ADAPTIVEGEN_EDGE_{name.upper()}": str(value) for name, value in self.settings.items()}

    @staticmethod
    def command() -> list[str]:
        return [sys.executable, "-m", "edge_node"]


@asynccontextmanager
async def spooling_edge(ports: Ports) -> AsyncIterator[Node]:
    """An edge in this process."""
    settings = EdgeSettings(**ports.settings)
    async with service(
        lambda stop: serve_edge(settings, clock=CLOCK, rng=random.Random(5), stop=stop),
        lambda: answering(ports.endpoint),
    ) as node:
        yield node


def spooled(ports: Ports) -> list[str]:
    """Ids of the jobs in the spool, as its folder has them."""
    return sorted(path.parent.name for path in (ports.spool / "jobs" / "jobs").glob("*/*/spec"))


async def ready(client: httpx.AsyncClient, status: str) -> dict[str, Any]:
    """What /readyz says, once it says `status`."""

    async def ask() -> dict[str, Any] | None:
        try:
            said: dict[str, Any] = (await client.get("/readyz")).json()
        except httpx.HTTPError:
            return None
        return said if said["status"] == status else None

    return await until(f"an edge that is {status}", ask)


async def post(client: httpx.AsyncClient, *, key: str | None = None, **fields: Any) -> dict[str, Any]:
    """The video of an accepted request."""
    headers = {"idempotency-key": key} if key else {}
    answer = await client.post("/v1/videos", json={"prompt": PROMPT, "seed": 1, **fields}, headers=headers)
    assert answer.status_code in (200, 202), answer.text
    video: dict[str, Any] = answer.json()
    return video


async def when(client: httpx.AsyncClient, video_id: str, **wanted: Any) -> dict[str, Any]:
    """The video, once its fields are as wanted; True stands for anything that is there."""

    async def ask() -> dict[str, Any] | None:
        answer = await client.get(f"/v1/videos/{video_id}")
        if answer.status_code != 200:
            return None
        video: dict[str, Any] = answer.json()
        same = all(bool(video[name]) if value is True else video[name] == value for name, value in wanted.items())
        return video if same else None

    return await until(f"{video_id} with {wanted}", ask)
