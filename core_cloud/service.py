"""Composition of a cloud worker: its parts, their order of start and of drain. No decisions."""

from __future__ import annotations

import asyncio
import random

from adaptivegen.blob.selftest import selftest
from adaptivegen.blob.store import open_store
from adaptivegen.bus.nats import NatsBus
from adaptivegen.clock import Clock
from adaptivegen.generation.runner import ModelRunner
from adaptivegen.heartbeat import Heartbeat
from adaptivegen.jobs.store import JobStore
from adaptivegen.models.registry import load_card
from adaptivegen.nodes import NodeReport
from adaptivegen.process import end, retry_until
from adaptivegen.rpc.channel import ClientTls
from adaptivegen.rpc.server import RpcServer, ServerTls
from adaptivegen.settings import describe
from adaptivegen.telemetry import configure_logging, get_logger
from core_cloud.drafts import DraftSource
from core_cloud.settings import WorkerSettings
from core_cloud.worker import Worker


async def serve(settings: WorkerSettings, *, clock: Clock, rng: random.Random, stop: asyncio.Event) -> None:
    """Run the worker until `stop`, then drain. Raises SettingsInvalid, ModelNotFound or StoreUnsafe at start."""
    configure_logging("worker", settings.node_id, settings.log_level)
    settings.require_mutual_tls()
    get_logger().info("starting", **describe(settings))
    card = load_card(settings.model)
    blob = open_store(settings.store_url)
    await selftest(blob, rng)
    runner = ModelRunner(
        "core_cloud.engine.child",
        [settings.model, settings.backend, str(settings.threads)],
        clock=clock,
        step_timeout_s=settings.step_timeout_s,
    )
    await runner.start()
    bus = NatsBus(settings.nats_servers(), name=settings.node_id)
    if not await retry_until(bus.start, stop=stop, clock=clock, what="broker"):
        return
    jobs = JobStore(blob=blob, bus=bus, clock=clock)
    tls = _client_tls(settings)
    worker = Worker(
        node_id=settings.node_id,
        jobs=jobs,
        bus=bus,
        runner=runner,
        drafts=DraftSource(jobs=jobs, wait_s=settings.draft_wait_s, tls=tls),
        card=card,
        clock=clock,
        pool=settings.pool,
        lease_s=settings.ack_wait_s,
    )
    server = RpcServer(rng=rng)
    port = server.reserve(host=settings.host, port=settings.grpc_port, tls=_server_tls(settings))
    await server.start()
    address = settings.advertised(port)
    started_at_ns = clock.now_ns()

    def report() -> NodeReport:
        return NodeReport(
            node_id=settings.node_id,
            kind="worker",
            seq=0,
            sent_at_ns=0,
            started_at_ns=started_at_ns,
            grpc_address=address,
            pool=settings.pool,
            models=(settings.model,),
            ready=runner.ready,
            draining=stop.is_set(),
            capacity=1,
            in_flight=1 if worker.progress else 0,
            remaining_s=worker.progress.remaining_s(idle_s=0.0) if worker.progress else 0.0,
        )

    heartbeat = Heartbeat(bus, clock, report, on_drain=worker.pause)
    async with asyncio.TaskGroup() as group:
        beating = group.create_task(heartbeat.run())
        keeping = group.create_task(runner.keep())
        working = group.create_task(worker.run())
        get_logger().info("ready", address=address, model=settings.model, pool=settings.pool)
        await stop.wait()
        await server.set_serving(False)
        await worker.drain(grace_s=settings.drain_grace_s)
        await end(working, beating, keeping)
    await server.drain(grace_s=1.0)
    await runner.close()
    await bus.close()
    await blob.close()
    get_logger().info("stopped")


def _server_tls(settings: WorkerSettings) -> ServerTls | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return ServerTls(cert=settings.tls_cert, key=settings.tls_key, client_ca=settings.tls_client_ca)


def _client_tls(settings: WorkerSettings) -> ClientTls | None:
    if settings.tls_client_ca is None:
        return None
    return ClientTls(ca=settings.tls_client_ca, cert=settings.tls_cert, key=settings.tls_key)
