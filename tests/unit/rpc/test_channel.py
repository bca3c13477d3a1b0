"""Calls of a peer: what goes along, and that every failure is one of ours. No sockets: the stub is a function."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from adaptivegen.errors import AdaptiveGenError, InternalError, NodeUnavailable
from adaptivegen.rpc.channel import call, open_channel, stream
from adaptivegen.telemetry import name_request

DEADLINE_S = 3.0
AWAY = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "refused")


class Responses:
    """What a stub's streaming method returns."""

    def __init__(self, *items: object) -> None:
        self._items = items
        self.cancelled = False

    async def __aiter__(self) -> AsyncIterator[object]:
        for item in self._items:
            if isinstance(item, BaseException):
                raise item
            yield item

    def cancel(self) -> None:
        self.cancelled = True


def answering(answer: object) -> Callable[..., Any]:
    """A stub's method that answers or fails so."""

    async def method(request: object, *, timeout: float, metadata: tuple[tuple[str, str], ...]) -> object:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return method


async def test_a_call_carries_its_deadline_the_request_id_the_trace_and_what_is_added() -> None:
    name_request("req_1")
    sent: dict[str, Any] = {}

    async def method(request: object, *, timeout: float, metadata: tuple[tuple[str, str], ...]) -> object:
        sent.update(request=request, timeout=timeout, metadata=dict(metadata))
        return "answer"

    extra = (("authorization", "Bearer k"),)
    assert await call(method, "request", deadline_s=DEADLINE_S, peer="p", metadata=extra) == "answer"
    assert (sent["request"], sent["timeout"]) == ("request", DEADLINE_S)
    assert sent["metadata"] == {"x-request-id": "req_1", "authorization": "Bearer k"}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (AWAY, NodeUnavailable),
        (grpc.aio.UsageError("Channel is closed."), NodeUnavailable),
        (asyncio.CancelledError(), NodeUnavailable),  # by the channel's close: nobody cancelled this task
        (None, InternalError),  # grpc's word for bytes that are no message
    ],
    ids=["away", "closed before", "closed meanwhile", "undecodable"],
)
async def test_every_failure_is_typed_and_names_the_peer(answer: object, error: type[AdaptiveGenError]) -> None:
    with pytest.raises(error, match="scheduler s1"):
        await call(answering(answer), "request", deadline_s=DEADLINE_S, peer="scheduler s1")

    def streaming(request: object, *, timeout: float, metadata: tuple[tuple[str, str], ...]) -> Responses:
        return Responses("first", answer)

    got: list[object] = []
    with pytest.raises(error, match="scheduler s1"):
        async for message in stream(streaming, "request", deadline_s=DEADLINE_S, peer="scheduler s1"):
            got.append(message)
    assert got == ["first"]


async def test_a_task_that_is_cancelled_while_it_calls_is_cancelled() -> None:
    entered = asyncio.Event()

    async def method(request: object, *, timeout: float, metadata: tuple[tuple[str, str], ...]) -> object:
        entered.set()
        await asyncio.Event().wait()
        return "answer"

    async with asyncio.TaskGroup() as group:
        task = group.create_task(call(method, "request", deadline_s=DEADLINE_S, peer="p"))
        await entered.wait()
        task.cancel()
    assert task.cancelled()


async def test_a_stream_that_is_left_half_read_is_cancelled_at_the_peer() -> None:
    responses = Responses("first", "second")

    def method(request: object, *, timeout: float, metadata: tuple[tuple[str, str], ...]) -> Responses:
        return responses

    messages = stream(method, "request", deadline_s=DEADLINE_S, peer="p")
    assert await anext(messages) == "first"
    assert not responses.cancelled
    await messages.aclose()
    assert responses.cancelled


async def test_a_channel_connects_only_when_it_is_used() -> None:
    channel = open_channel("127.0.0.1:9")
    assert channel.get_state() is grpc.ChannelConnectivity.IDLE
    await channel.close()
