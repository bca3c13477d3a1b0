"""Composition of a cloud worker: its parts, their order of start and of drain. No decisions."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from importlib.util import find_spec
from typing import Any

from adaptivegen.blob.selftest import selftest
from adaptivegen.blob.store import open_store
from adaptivegen.broker import open_bus
from adaptivegen.bus.base import Bus
from adaptivegen.clock import Clock
from adaptivegen.desired import DesiredModels
from adaptivegen.discovery.base import Endpoint
from adaptivegen.discovery.source import open_discovery
from adaptivegen.drain import Grace
from adaptivegen.errors import ModelNotFound
from adaptivegen.generation.kept import ModelSet
from adaptivegen.generation.runner import Finished, ModelRunner
from adaptivegen.heartbeat import Heartbeat
from adaptivegen.jobs.store import JobStore
from adaptivegen.models.card import ModelCard
from adaptivegen.models.pushed import PushedModels
from adaptivegen.nodes import NodeReport
from adaptivegen.process import end, retry_until
from adaptivegen.rpc.placement_client import PlacementClient, find_schedulers
from adaptivegen.rpc.server import RpcServer
from adaptivegen.settings import describe
from adaptivegen.telemetry import configure_logging, get_logger
from adaptivegen.tls import check_files, client_tls, server_tls
from adaptivegen.ways import Transfers
from core_cloud.drafts import DraftSource
from core_cloud.settings import WorkerSettings
from core_cloud.turns import AskedTurns, Turns
from core_cloud.worker import Worker

MODEL_CHILD = ("core_cloud.engine.child",)


async def serve(
    settings: WorkerSettings,
    *,
    clock: Clock,
    rng: random.Random,
    stop: asyncio.Event,
    child: Sequence[str] = MODEL_CHILD,
) -> None:
    """Run the worker until `stop`, then drain. Raises SettingsInvalid, StoreUnsafe or what the model raises.

    child: module of the models' processes, and its first arguments."""
    configure_logging("worker", settings.node_id, settings.log_level)
    settings.require_mutual_tls()
    get_logger().info("starting", **describe(settings))
    _check_model(settings)
    check_files(settings)
    async with AsyncExitStack() as resources:
        blob = open_store(settings.store_url)
        resources.push_async_callback(blob.close)
        await selftest(blob, rng)
        server = RpcServer(rng=rng)
        port = server.reserve(host=settings.host, port=settings.grpc_port, tls=server_tls(settings, mutual=True))
        endpoint = Endpoint("worker", settings.node_id, grpc_address=settings.advertised(port))
        bus = open_bus(settings)
        resources.push_async_callback(bus.close)
        if not await retry_until(bus.start, stop=stop, clock=clock, what="broker"):
            return
        desired = DesiredModels(bus, clock)
        await desired.read()
        pushed = PushedModels(blob, settings.library(), settings.models_dir, max_bytes=settings.models_max_bytes)
        models = _models(settings, desired, pushed, child, clock=clock, resources=resources)
        schedulers = PlacementClient(
            settings.schedulers(), clock=clock, budget_s=settings.turn_budget_s, tls=client_tls(settings)
        )
        resources.push_async_callback(schedulers.close)
        jobs = JobStore(blob=blob, bus=bus, clock=clock)
        transfers = Transfers()
        worker = _worker(settings, jobs, bus, models, AskedTurns(schedulers), transfers, clock=clock)
        report = _reporter(settings, worker, models, endpoint, transfers, stop, clock=clock)
        heartbeat = Heartbeat(bus, clock, report, on_drain=worker.pause)
        async with asyncio.TaskGroup() as group:
            beating = group.create_task(heartbeat.run())  # it tells of the load, too
            await models.start()
            await server.start()
            resources.push_async_callback(server.drain, grace_s=0)
            sweep = pushed.sweep(
                lambda: {settings.model, *desired.may_be_wanted(), *models.needed},
                clock,
                keep_days=settings.models_keep_days,
            )
            keeping = (models.run(), desired.run(), sweep)
            await _run(settings, worker, keeping, server, endpoint, schedulers, bus=bus, clock=clock, stop=stop)
            await end(beating)
    get_logger().info("stopped")


async def _run(
    settings: WorkerSettings,
    worker: Worker,
    keeping: Iterable[Coroutine[Any, Any, None]],
    server: RpcServer,
    endpoint: Endpoint,
    schedulers: PlacementClient,
    *,
    bus: Bus,
    clock: Clock,
    stop: asyncio.Event,
) -> None:
    """Take jobs until `stop`; the one at hand may then finish within the grace, or is given back."""
    discovery = open_discovery(settings.discovery, bus, clock, settings.consul())
    async with asyncio.TaskGroup() as group:
        working = group.create_task(worker.run())
        parts = (
            *keeping,
            discovery.register(endpoint),
            find_schedulers(schedulers, discovery, fixed=bool(settings.schedulers())),
        )
        others = [group.create_task(part) for part in parts]
        get_logger().info("ready", address=endpoint.grpc_address, model=settings.model, pool=settings.pool)
        await stop.wait()
        grace = Grace(clock, settings.drain_grace_s)
        await server.set_serving(False)
        await worker.drain(grace_s=grace.left_s)
        await end(working, *others)


def _check_model(settings: WorkerSettings) -> None:
    """Raises SettingsInvalid for a model or a backend that cannot be had here."""
    missing = [name for name in ("torch", "onnx") if find_spec(name) is None]
    if settings.backend == "torch" and missing:
        raise settings.refuse("backend", f"auto or onnx, as {' and '.join(missing)} is not installed here")
    try:
        settings.library().card(settings.model)
    except ModelNotFound as exc:
        raise settings.refuse("model", ", ".join(settings.library().names())) from exc


def _models(
    settings: WorkerSettings,
    desired: DesiredModels,
    pushed: PushedModels,
    child: Sequence[str],
    *,
    clock: Clock,
    resources: AsyncExitStack,
) -> ModelSet:
    """The versions of the model that this worker is to have; none is loaded yet."""
    library, finished = settings.library(), Finished()

    def open_runner(card: ModelCard) -> ModelRunner:
        return ModelRunner(
            child[0],
            [*child[1:], card.name, settings.backend, str(settings.threads), str(library.folder(card.name))],
            clock=clock,
            step_timeout_s=settings.step_timeout_s,
            finished=finished,
        )

    models = ModelSet(
        lambda: desired.of(settings.model).wanted(settings.node_id), library.card, open_runner, clock, pushed.ensure
    )
    resources.push_async_callback(models.close)
    return models


def _worker(
    settings: WorkerSettings,
    jobs: JobStore,
    bus: Bus,
    models: ModelSet,
    turns: Turns,
    transfers: Transfers,
    *,
    clock: Clock,
) -> Worker:
    return Worker(
        node_id=settings.node_id,
        jobs=jobs,
        bus=bus,
        models=models,
        line=settings.model,
        drafts=DraftSource(
            jobs=jobs, wait_s=settings.draft_wait_s, tls=client_tls(settings), clock=clock, transfers=transfers
        ),
        clock=clock,
        pool=settings.pool,
        lease_s=settings.ack_wait_s,
        ahead_s=settings.claim_ahead_s,
        incarnation=f"{clock.now_ns():x}",
        turns=turns,
        transfers=transfers,
    )


def _reporter(
    settings: WorkerSettings,
    worker: Worker,
    models: ModelSet,
    endpoint: Endpoint,
    transfers: Transfers,
    stop: asyncio.Event,
    *,
    clock: Clock,
) -> Callable[[], NodeReport]:
    """What the heartbeat says of this worker."""
    started_at_ns = clock.now_ns()

    def report() -> NodeReport:
        return NodeReport(
            node_id=settings.node_id,
            kind="worker",
            seq=0,
            sent_at_ns=0,
            started_at_ns=started_at_ns,
            grpc_address=endpoint.grpc_address or "",
            pool=settings.pool,
            models=models.loaded,
            line=settings.model,
            refused=models.refused,
            ready=models.ready,
            draining=stop.is_set(),
            ending=stop.is_set(),
            capacity=1,
            in_flight=len(worker.stages.at_hand) + len(worker.stages.storing),
            at_hand=worker.stages.at_hand,
            storing=worker.stages.storing,
            remaining_s=worker.stages.remaining_s,
            finished=models.finished,
            failed_in_row=models.failed_in_row,
            loading=models.loading,
            ways=transfers.told(now_s=clock.monotonic_s()),
        )

    return report
