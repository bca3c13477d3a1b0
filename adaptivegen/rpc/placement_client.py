"""Schedulers asked over gRPC: decisions, turns, and what really happened. What answers them is `placement`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from adaptivegen.clock import Clock
from adaptivegen.discovery.base import Discovery
from adaptivegen.discovery.follow import follow
from adaptivegen.errors import AdaptiveGenError, InternalError, InvalidRequest, ModelNotFound, NodeUnavailable
from adaptivegen.ids import check_name, check_video_id
from adaptivegen.placement import Attempt, Decision, Outcome, PlacementQuery, Ticket, ToldSteps, Turn, on_query
from adaptivegen.rpc.channel import ClientTls, call, open_channel
from adaptivegen.rpc.pb import placement_pb2 as pb
from adaptivegen.rpc.pb import placement_pb2_grpc as stubs
from adaptivegen.rpc.placement import decision_from_pb, query_to_pb, seconds

REPORT_DEADLINE_S = 2.0
LONGEST_REST_S = 60.0
Answer = TypeVar("Answer")


class PlacementClient:
    """Asks schedulers in order within one budget; one that fails goes to the end of the order."""

    def __init__(
        self, addresses: list[str], *, clock: Clock, budget_s: float = 0.05, tls: ClientTls | None = None
    ) -> None:
        self._clock = clock
        self._budget_s = budget_s
        self._tls = tls
        self._channels = {address: open_channel(address, tls=tls) for address in addresses}
        self._order = list(addresses)

    async def place(self, query: PlacementQuery) -> Decision:
        """Decide. InvalidRequest and ModelNotFound are about the query and go up at once; after any other failure the
        next scheduler is asked while the budget lasts, and the last failure is raised when none decided."""
        return await self._first("Place", query_to_pb(query), lambda reply: on_query(decision_from_pb(reply), query))

    async def next_job(self, ticket: Ticket) -> Turn:
        """Whose turn it is, of the first scheduler that says so within the budget; raises the last failure."""
        return await self._first("NextJob", pb.NextJobRequest(**ticket.model_dump()), _turn)

    async def _first(self, method: str, request: object, read: Callable[[Any], Answer]) -> Answer:
        """What the first scheduler answers that does within the budget; one that fails goes to the end of the order."""
        until_s = self._clock.monotonic_s() + self._budget_s
        last: AdaptiveGenError = NodeUnavailable("no scheduler is configured")
        for address in list(self._order):
            left_s = until_s - self._clock.monotonic_s()
            if left_s <= 0:
                break
            channel = self._channels.get(address)
            if channel is None:
                continue  # dropped by an update meanwhile
            asked = getattr(stubs.PlacementServiceStub(channel), method)
            try:
                return read(await call(asked, request, deadline_s=left_s, peer=f"scheduler {address}"))
            except (InvalidRequest, ModelNotFound):
                raise
            except AdaptiveGenError as exc:
                last = exc
                if address in self._order:
                    self._order.remove(address)
                    self._order.append(address)
        raise last

    async def report(self, outcome: Outcome) -> None:
        """Tell every scheduler what happened: only the one that decided knows what it had predicted, and any may have.

        Raises the last failure where none took it.
        """
        request = pb.ReportOutcomeRequest(
            **outcome.model_dump(exclude={"first_look_s", "draft_s", "final_s"}),
            first_look_s=seconds(outcome.first_look_s),
            draft_s=seconds(outcome.draft_s),
            final_s=seconds(outcome.final_s),
        )
        await self._tell_all("ReportOutcome", request)

    async def report_attempt(self, attempt: Attempt) -> None:
        """Tell every scheduler how it went at another node. Raises the last failure where none took it."""
        await self._tell_all("ReportAttempt", pb.ReportAttemptRequest(**attempt.model_dump()))

    async def _tell_all(self, method: str, request: object) -> None:
        if not self._order:
            raise NodeUnavailable("no scheduler is configured")
        async with asyncio.TaskGroup() as group:
            channels = {address: self._channels[address] for address in self._order}
            told = [
                group.create_task(_tell(address, channel, method, request)) for address, channel in channels.items()
            ]
        failures = [failure for task in told if (failure := task.result()) is not None]
        if len(failures) == len(told):
            raise failures[-1]

    async def update(self, addresses: list[str]) -> None:
        """Ask these schedulers from now on; the order among those already known stays."""
        for address in addresses:
            if address not in self._channels:
                self._channels[address] = open_channel(address, tls=self._tls)
                self._order.append(address)
        for address in [known for known in self._order if known not in addresses]:
            self._order.remove(address)
            await self._channels.pop(address).close(None)

    async def close(self) -> None:
        """Close the channels."""
        for channel in self._channels.values():
            await channel.close()


def _turn(message: pb.NextJobResponse) -> Turn:
    """A turn from the wire; raises InternalError for one that could not be taken."""
    try:
        check_name(message.tenant, field="tenant")
        check_video_id(message.job_id, field="job_id")
    except InvalidRequest as exc:
        raise InternalError(f"not a turn: {exc.message}") from exc
    if not 0.0 <= message.rest_s <= LONGEST_REST_S:  # nor if it is no number
        raise InternalError(f"not a turn: rest_s is {message.rest_s}; allowed: 0 to {LONGEST_REST_S:g}")
    told = ToldSteps(message.final_steps, message.others_wait)
    return Turn(tenant=message.tenant, job_id=message.job_id, rest_s=message.rest_s, told=told)


async def find_schedulers(client: PlacementClient, discovery: Discovery, *, fixed: bool) -> None:
    """Keep the client's addresses those of the registered schedulers, until cancelled; nothing to do when `fixed`."""
    if not fixed:
        await follow("scheduler", discovery, lambda node: node.grpc_address, client.update)


async def _tell(address: str, channel: grpc.aio.Channel, method: str, request: object) -> AdaptiveGenError | None:
    stub = stubs.PlacementServiceStub(channel)
    try:
        await call(getattr(stub, method), request, deadline_s=REPORT_DEADLINE_S, peer=f"scheduler {address}")
    except AdaptiveGenError as exc:
        return exc
    return None
