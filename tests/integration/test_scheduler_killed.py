"""A scheduler that is killed after it has decided and before the job is there: a real process, edge, worker, broker."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from adaptivegen.errors import Unavailable
from adaptivegen.jobs.store import JobStore
from adaptivegen.rpc.admin_client import AdminClient
from adaptivegen.rpc.admin_rows import JobFilter
from adaptivegen.rpc.placement import PLACE, SERVICE
from cli.system.ports import free_ports
from tests.integration import real_nodes
from tests.integration.centre import Centre, post, when
from tests.integration.real_nodes import until
from tests.integration.test_scheduler import start_process
from tests.servers import NatsServer


def _placing(channel: grpc.aio.Channel) -> "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]":
    return channel.unary_unary(PLACE, request_serializer=bytes, response_deserializer=bytes)


class Relay:
    """Takes calls to place to a scheduler, byte for byte. When its process has answered one that is to be its last, it
    is killed, and only then the answer goes on to the edge."""

    def __init__(self, address: str, store: Path) -> None:
        self._address = address
        self._store = store
        self.doomed: subprocess.Popen[str] | None = None
        self.specs_at_death: list[Path] | None = None

    async def place(self, request: bytes, context: "grpc.aio.ServicerContext[Any, Any]") -> bytes:
        async with grpc.aio.insecure_channel(self._address) as channel:
            try:
                answer: bytes = await _placing(channel)(request, timeout=context.time_remaining())
            except grpc.aio.AioRpcError as exc:
                await context.abort(exc.code(), exc.details() or "")
        if self.doomed is not None and self.specs_at_death is None:
            self.doomed.kill()
            await asyncio.to_thread(self.doomed.wait)
            self.specs_at_death = list(self._store.glob("jobs/*/*/spec"))
        return answer

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        server = grpc.aio.server()
        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self.place)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Place": method}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(0)


def start(folder: Path, nats_url: str, port: int) -> subprocess.Popen[str]:
    return start_process(folder, NATS_URLS=nats_url, GRPC_PORT=str(port), RECONCILE_INTERVAL_S="0.3", LOG_LEVEL="error")


def ended(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


async def sees_nodes(admin: AdminClient) -> None:
    async def ask() -> bool | None:
        try:
            states = {node.kind: node.state for node in await admin.nodes()}
        except Unavailable:
            return None
        return True if states == {"edge": "healthy", "worker": "healthy"} else None

    await until("a scheduler seeing edge and worker", ask)


async def counted(admin: AdminClient, jobs: int) -> None:
    """Return once so many jobs of the tenant are open, and seconds of workers are kept for these alone."""

    async def ask() -> bool | None:
        try:
            found = {tenant.tenant: tenant for tenant in await admin.tenants()}
        except Unavailable:
            return None
        local = found.get("local")
        count, reserved_s = (local.open_jobs, local.reserved_gpu_s) if local is not None else (0, 0.0)
        return True if count == jobs and (reserved_s > 0) == (jobs > 0) else None

    await until(f"{jobs} jobs being counted", ask)


@pytest.mark.parametrize("survivor", ["another", "restarted"])
async def test_a_scheduler_killed_between_its_decision_and_the_job_leaves_one_job_and_nothing_counted(
    own_nats: NatsServer, tmp_path: Path, survivor: str
) -> None:
    first_port, other_port = free_ports(2)
    process = start(tmp_path, own_nats.url, first_port)
    centre, relay = Centre(own_nats, tmp_path), Relay(f"127.0.0.1:{first_port}", tmp_path / "store")
    async with AsyncExitStack() as stack:
        stack.callback(lambda: ended(process))
        if survivor == "another":
            other = real_nodes.scheduler(
                own_nats.url, tmp_path, node_id="scheduler-2", grpc_port=other_port, reconcile_interval_s=0.3
            )
            await stack.enter_async_context(other)
        address = f"127.0.0.1:{other_port if survivor == 'another' else first_port}"
        relayed = await stack.enter_async_context(relay.serving())
        await stack.enter_async_context(real_nodes.worker(own_nats.url, tmp_path, threads=1))
        edge = await stack.enter_async_context(
            real_nodes.edge(
                own_nats.url, tmp_path, threads=1, place_budget_s=5.0, scheduler_addresses=f"{relayed},{address}"
            )
        )
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=edge.http, timeout=30))
        admin = AdminClient(address)
        stack.push_async_callback(admin.close)
        decider = AdminClient(f"127.0.0.1:{first_port}")
        stack.push_async_callback(decider.close)
        await sees_nodes(decider)
        await decider.set_quota("local", {"concurrent_jobs": 1.0}, reason="so that what stays counted is felt")

        relay.doomed = process
        video = await post(http, plan="cloud", steps=50)
        assert process.returncode == -9
        assert relay.specs_at_death == []  # it had decided, and there was no job yet
        if survivor == "restarted":
            again = start(tmp_path, own_nats.url, first_port)
            stack.callback(lambda: ended(again))
        await counted(admin, 1)  # by one that has not decided on it, or no longer knows
        done = await when(http, video["id"], status="completed")
        assert done["id"] == video["id"]
        await counted(admin, 0)

        jobs: JobStore = await stack.enter_async_context(centre.jobs())
        spec, record = await jobs.spec("local", video["id"]), await jobs.find("local", video["id"])
        assert (spec.decision.decided_by, spec.decision.plan) == ("scheduler-1", "cloud")
        assert (record.status, record.attempts) == ("completed", 1)
        assert [job.id for job in await admin.jobs(JobFilter())] == [video["id"]]
        assert len(list((tmp_path / "store").glob(f"out/local/{video['id']}/1/*.mp4"))) == 1
        assert await centre.messages() == []

        await sees_nodes(admin)
        following = await post(http, seed=2, plan="cloud", steps=1)  # refused, if the first were counted for ever
        assert (await when(http, following["id"], status="completed"))["id"] != video["id"]
        decided = (await jobs.spec("local", following["id"])).decision
        assert decided.decided_by == ("scheduler-2" if survivor == "another" else "scheduler-1")
        await counted(admin, 0)
