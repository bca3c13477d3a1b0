"""The calls of one Consul agent that discovery makes, by py-consul. Each has a deadline and raises errors of ours only.

py-consul says what is asked and reads the answers; the requests go through a client of ours (`_Http`), because its
own do not fit. `consul.aio`: it can only be built with arguments that aiohttp has deprecated, reads the CAs of the
machine on the loop for each client, takes one time limit for questions that wait and those that do not, and answers of
any length. `consul.std`: a question that waits for half a minute would hold a thread, which nobody can cancel, and with
it the end of the process.

Imported only where Consul is used: py-consul is an extra.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp
import consul.base
from consul.exceptions import ACLDisabled, ACLPermissionDenied, ConsulException

from adaptivegen.discovery.consul_service import Service
from adaptivegen.errors import NodeUnavailable, PermissionDenied

MAX_ANSWER_BYTES = 16 * 1024**2  # about ten thousand nodes
MAX_SHOWN_CHARS = 200


class _Http(consul.base.HTTPClient):  # type: ignore[misc]
    """py-consul's requests by aiohttp. No redirect is followed: it would carry the token elsewhere."""

    def __init__(self, base_uri: str, tls: ssl.SSLContext | bool) -> None:
        self.base_uri = base_uri
        self._tls = tls
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))  # each call has its deadline

    async def get(
        self,
        callback: Callable[[object], Any],
        path: str,
        params: Sequence[tuple[str, object]] | None = None,
        headers: Mapping[str, str] | None = None,
        raw: bool = False,
    ) -> Any:
        return await self._request("GET", callback, path, params, headers)

    async def put(
        self,
        callback: Callable[[object], Any],
        path: str,
        params: Sequence[tuple[str, object]] | None = None,
        data: str | bytes = "",
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        return await self._request("PUT", callback, path, params, headers, data)

    async def post(self, *_args: object, **_kwargs: object) -> Any:
        raise NotImplementedError  # of no call here

    async def delete(self, *_args: object, **_kwargs: object) -> Any:
        raise NotImplementedError

    async def close(self) -> None:
        await self._session.close()

    async def _request(
        self,
        method: str,
        callback: Callable[[object], Any],
        path: str,
        params: Sequence[tuple[str, object]] | None,
        headers: Mapping[str, str] | None,
        data: str | bytes = "",
    ) -> Any:
        async with self._session.request(
            method, self.uri(path, params), headers=headers, data=data or None, ssl=self._tls, allow_redirects=False
        ) as answer:
            body = bytearray()
            async for piece in answer.content.iter_chunked(64 * 1024):
                body += piece
                if len(body) > MAX_ANSWER_BYTES:
                    raise ConsulException(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
            return callback(consul.base.Response(answer.status, answer.headers, body.decode()))


class _Client(consul.base.Consul):  # type: ignore[misc]
    """What is left out here py-consul would take from the environment, where no setting of ours is."""

    def __init__(self, url: str, token: str, tls: ssl.SSLContext | bool) -> None:
        self._connected = _Http(url.rstrip("/"), tls)
        super().__init__(host="", port=0, scheme="", verify=True)
        self.token = token  # as an argument it would yield to CONSUL_HTTP_TOKEN

    def http_connect(self, *_args: object) -> _Http:
        return self._connected


class ConsulAgent:
    """One agent, used as `async with`. Raises NodeUnavailable when it cannot be reached, is late or answers with what
    cannot be read, and PermissionDenied when it refuses the token."""

    def __init__(self, url: str, *, token: str, tls: ssl.SSLContext | bool, deadline_s: float) -> None:
        self._url = url
        self._deadline_s = deadline_s
        self._client = _Client(url, token, tls)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.http.close()

    async def passing(self, name: str, *, index: int = 0, wait_s: float = 0.0) -> tuple[int, list[object]]:
        """The instances of a service whose checks all pass, and the index of that answer; with an `index`, once there
        is a newer one or `wait_s` have gone by."""
        wait = {"index": index, "wait": f"{wait_s:g}s"} if index else {}
        late_s = wait_s * 17 / 16 if index else 0.0  # Consul adds up to a sixteenth, lest all wake it at once
        answered, entries = await self._call(
            f"service:read on {name}",
            self._client.health.service(name, passing=True, **wait),
            deadline_s=self._deadline_s + late_s,
        )
        if not isinstance(entries, list):
            raise self._unreadable(f"a list of instances of {name}", entries)
        if not (isinstance(answered, str) and answered.isascii() and answered.isdigit() and len(answered) <= 20):
            raise self._unreadable("a number as X-Consul-Index", answered)
        return int(answered), entries

    async def register(self, service: Service) -> None:
        """Make the service known, in place of any with this id."""
        done = await self._call(
            f"service:write on {service.name}",
            self._client.agent.service.register(
                service.name,
                service_id=service.id,
                address=service.address,
                port=service.port,
                meta=dict(service.meta),
                check=dict(service.check),
                replace_existing_checks=True,
            ),
        )
        if not done:
            raise self._unreadable("the service to be taken", "404 or a redirect")

    async def meta(self, service: Service) -> Mapping[str, object] | None:
        """The meta data of the service of this id as the agent has it, None where it has none."""
        held = await self._call(
            f"service:read on {service.name}",
            self._client.agent.services(filter_expr=f'ID == "{service.id}"'),
        )
        if not isinstance(held, Mapping):
            raise self._unreadable("the agent's services", held)
        found = held.get(service.id)
        if found is None:
            return None
        meta = found.get("Meta") if isinstance(found, Mapping) else None
        return meta if isinstance(meta, Mapping) else {}

    async def beat(self, service: Service) -> bool:
        """Say that the service lives; False where the agent knows no such check."""
        return bool(
            await self._call(f"service:write on {service.name}", self._client.agent.check.ttl_pass(service.check_id))
        )

    async def deregister(self, service: Service) -> None:
        """Take the service out."""
        await self._call(f"service:write on {service.name}", self._client.agent.service.deregister(service.id))

    async def _call(self, right: str, call: Awaitable[Any], *, deadline_s: float | None = None) -> Any:
        limit_s = self._deadline_s if deadline_s is None else deadline_s
        try:
            async with asyncio.timeout(limit_s):
                return await call
        except TimeoutError as exc:
            raise NodeUnavailable(f"Consul at {self._url}: no answer within {limit_s:g} s") from exc
        except (ACLPermissionDenied, ACLDisabled) as exc:
            said = f"Consul at {self._url} refuses this node ({_shown(exc)}); allowed: a consul_token with {right}"
            raise PermissionDenied(said, param="consul_token") from exc
        except (ConsulException, aiohttp.ClientError, OSError, ValueError, RecursionError) as exc:
            raise NodeUnavailable(f"Consul at {self._url}: {_shown(exc)}") from exc

    def _unreadable(self, wanted: str, answer: object) -> NodeUnavailable:
        return NodeUnavailable(f"Consul at {self._url}: expected {wanted}, not {_shown(answer)}")


def _shown(answer: object) -> str:
    text = " ".join((str(answer) or type(answer).__name__).split())
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 3] + "..."
