"""Dead letters in JetStream: messages that were given up, each with its reason, for thirty days."""

from __future__ import annotations

from nats.js import JetStreamContext, api

from adaptivegen.bus.base import DeadLetter
from adaptivegen.bus.nats_connection import GONE, NatsConnection, ensure_stream, translated

DEAD_STREAM = "AG_DEAD"
REASON_HEADER = "ag-reason"
MAX_REASON_CHARACTERS = 500
MAX_DEAD_AGE_S = 30 * 24 * 3600.0
MAX_DEAD_MESSAGES = 100_000


class NatsDeadLetters:
    """The one stream of all pools' dead letters, made on first use."""

    def __init__(self, connection: NatsConnection, *, replicas: int) -> None:
        self._connection = connection
        self._replicas = replicas

    async def add(self, pool: str, data: bytes, *, reason: str, msg_id: str) -> None:
        """Keep one; a repeat with the same `msg_id` is dropped."""
        headers = {"Nats-Msg-Id": msg_id, REASON_HEADER: " ".join(reason.split())[:MAX_REASON_CHARACTERS]}
        jetstream = await self._connection.jetstream()
        with translated("dead letter"):
            try:
                await jetstream.publish(f"ag.dead.{pool}", data, stream=DEAD_STREAM, headers=headers)
            except GONE:
                await self._ensure(jetstream)
                await jetstream.publish(f"ag.dead.{pool}", data, stream=DEAD_STREAM, headers=headers)

    async def newest(self, limit: int) -> list[DeadLetter]:
        """Up to `limit`, newest first; each is a request of its own."""
        jetstream = await self._connection.jetstream()
        found: list[DeadLetter] = []
        with translated("dead letters"):
            try:
                state = (await jetstream.stream_info(DEAD_STREAM)).state
            except GONE:
                return found
            sequence = state.last_seq
            while sequence >= state.first_seq and sequence > 0 and len(found) < limit:
                try:
                    message = await jetstream.get_msg(DEAD_STREAM, sequence)
                    found.append(_letter(message))
                except GONE:
                    pass  # deleted by an operator
                sequence -= 1
        return found

    async def _ensure(self, jetstream: JetStreamContext) -> None:
        config = api.StreamConfig(
            name=DEAD_STREAM,
            subjects=["ag.dead.*"],
            max_age=MAX_DEAD_AGE_S,
            max_msgs=MAX_DEAD_MESSAGES,
            num_replicas=self._replicas,
        )
        await ensure_stream(jetstream, config)


def _letter(message: api.RawStreamMsg) -> DeadLetter:
    return DeadLetter(
        pool=(message.subject or "").rpartition(".")[2],
        data=message.data or b"",
        reason=str((message.headers or {}).get(REASON_HEADER, "")),
        at_ns=round(message.time.timestamp() * 1e9) if message.time else 0,
    )
