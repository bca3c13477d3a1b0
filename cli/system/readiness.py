"""Whether a process is ready, asked as its clients would: HTTP, gRPC health, or the broker's greeting.

Everything is on loopback, so no proxy of the environment is used.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cli.system.layout import ProcessPlan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PROBE_TIMEOUT_S = 1.0
_MAX_LINE_BYTES = 64 * 1024


async def is_ready(plan: ProcessPlan) -> bool:
    """One attempt, at most `PROBE_TIMEOUT_S`. Never raises: what cannot be asked is not ready."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            if plan.probe == "http":
                return await _http(plan.address)
            if plan.probe == "grpc":
                return await _grpc(plan.address)
            return await _broker(plan.address)
    except (TimeoutError, OSError, ValueError, grpc.aio.AioRpcError):
        return False


async def _http(address: str) -> bool:
    """GET /readyz answers 200."""
    async with _connection(address) as (reader, writer):
        writer.write(f"GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        return (await reader.readline()).split(b" ")[1:2] == [b"200"]


async def _grpc(address: str) -> bool:
    """grpc.health.v1 says SERVING for the whole server."""
    async with grpc.aio.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        reply = await stub.Check(health_pb2.HealthCheckRequest(), timeout=PROBE_TIMEOUT_S)
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


async def _broker(address: str) -> bool:
    """A nats-server greets, and has JetStream."""
    async with _connection(address) as (reader, _):
        verb, _, text = (await reader.readline()).partition(b" ")
        information = json.loads(text)
        return verb == b"INFO" and isinstance(information, dict) and information.get("jetstream") is True


@asynccontextmanager
async def _connection(address: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=_MAX_LINE_BYTES)
    try:
        yield reader, writer
    finally:
        writer.close()
