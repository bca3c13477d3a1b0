"""The broker's permissions as in docs/nats-permissions.conf: the whole path works, and no node speaks for another."""

import asyncio
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import nats
import pytest
from nats.js.api import ConsumerConfig, RePublish, StreamConfig

from adaptivegen.bus.nats_queue import JOBS_STREAM
from adaptivegen.errors import BrokerUnavailable
from adaptivegen.heartbeat import POLICY_BUCKET
from adaptivegen.nodes import drain_key, heartbeat_subject
from adaptivegen.rpc.admin_client import AdminClient
from cli.system.broker import configuration, find_binary
from cli.system.ports import free_ports
from tests.integration import real_nodes
from tests.integration.real_nodes import broker, until
from tests.unit.scheduler.builders import report

EXAMPLE = Path(__file__).parents[2] / "docs" / "nats-permissions.conf"
Url = Callable[[str], str]


@pytest.fixture
def url(tmp_path: Path) -> Iterator[Url]:
    """A nats-server with the example's users; the URL of one of them."""
    port = free_ports(1)[0]
    own = configuration(port=port, store_dir=tmp_path / "nats", password="none")
    config = tmp_path / "nats.conf"
    config.write_text(re.sub(r"authorization \{.*?\}\n", "", own, flags=re.DOTALL) + f'\ninclude "{EXAMPLE.name}"\n')
    (tmp_path / EXAMPLE.name).write_text(EXAMPLE.read_text())
    users = re.findall(r'user: "([a-z0-9-]+)"', EXAMPLE.read_text())
    passwords = {f"{user.upper().replace('-', '_')}_PASSWORD": f"{user}-secret" for user in users}
    log = tmp_path / "nats.log"
    with log.open("wb") as out:
        command = [str(find_binary(None, "")), "-c", str(config)]
        process = subprocess.Popen(command, env={**os.environ, **passwords}, stdout=out, stderr=out)
    until_s = time.monotonic() + 20
    while b"Server is ready" not in log.read_bytes():
        assert time.monotonic() < until_s, log.read_text()
        time.sleep(0.02)
    yield lambda user: f"nats://{user}:{user}-secret@127.0.0.1:{port}"
    process.kill()
    process.wait()


async def test_the_path_works_with_these_permissions_and_no_node_speaks_for_another(url: Url, tmp_path: Path) -> None:
    async with (
        real_nodes.scheduler(url("scheduler-1"), tmp_path) as scheduler,
        real_nodes.worker(url("worker-1"), tmp_path),
        real_nodes.edge(url("edge-1"), tmp_path, place_budget_s=2.0) as edge,
        httpx.AsyncClient(base_url=edge.http, timeout=30) as client,
    ):
        admin = AdminClient(scheduler.grpc)

        async def both() -> bool | None:
            return True if {node.node_id for node in await admin.nodes()} == {"edge-1", "worker-1"} else None

        await until("both being heard", both)
        body = {"prompt": "a red circle", "seed": 1, "steps": 2}
        video = (await client.post("/v1/videos", json=body, headers={"idempotency-key": "k"})).json()

        async def done() -> bool | None:
            told = (await client.get(f"/v1/videos/{video['id']}")).json()
            return True if told["status"] == "completed" else None

        await until("the final", done)
        before = {node.node_id: node.models for node in await admin.nodes()}
        async with broker(url("edge-1")) as bus:
            for kind, node_id in (("worker", "worker-1"), ("edge", "edge-2")):
                said = report(node_id, seq=10**6, models=("stolen",))
                await bus.publish(heartbeat_subject(kind, node_id), said.encode())  # type: ignore[arg-type]
            with pytest.raises(BrokerUnavailable):
                await (await bus.kv("nodes")).put("scheduler.scheduler-9", b"{}")
            with pytest.raises(BrokerUnavailable):
                await (await bus.kv(POLICY_BUCKET)).put(drain_key("worker-1"), b"")
        await _no_streams_of_its_own(url("edge-1"), subject=heartbeat_subject("worker", "worker-1"))
        await asyncio.sleep(1.0)  # it would be heard by then
        assert {node.node_id: node.models for node in await admin.nodes()} == before
        assert "worker-1" in before and "stolen" not in before["worker-1"]
        await admin.drain("worker-1")  # by a scheduler that is asked, all the same
        await admin.close()


async def _no_streams_of_its_own(url: str, *, subject: str) -> None:
    """With a stream that repeats what it publishes under another subject a node could speak as anybody."""
    client = await nats.connect(url)
    jetstream = client.jetstream(timeout=1.0)
    repeats = RePublish(src="ag.events.evil", dest=subject)
    with pytest.raises((nats.errors.Error, TimeoutError)):
        await jetstream.add_stream(StreamConfig(name="EVIL", subjects=["ag.events.evil"], republish=repeats))
    streams = await jetstream.stream_info(JOBS_STREAM)
    assert streams.config.name == JOBS_STREAM
    consumer = ConsumerConfig(durable_name="pool-default")
    with pytest.raises((nats.errors.Error, TimeoutError)):
        await jetstream.add_consumer(JOBS_STREAM, consumer)
    with pytest.raises((nats.errors.Error, TimeoutError)):
        await jetstream.delete_consumer(JOBS_STREAM, "pool-default")
    forged = report("worker-1", seq=10**6, models=("stolen",))
    await client.publish("ag.events.evil", forged.encode())
    await client.close()
