"""A small server that speaks Consul's HTTP API as far as discovery uses it, on a real socket: for tests where no real
agent is. One agent and its server in one, as `consul agent -dev` is.

Its checks go by the clock it is given, so that tests decide when time passes for them. It can be stopped and started on
the same port, lose its state, count its indexes anew, refuse tokens, fail and hang.
"""

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from aiohttp import web
from grpc_health.v1 import health_pb2, health_pb2_grpc

from adaptivegen.clock import Clock, SystemClock

TOKEN_HEADER = "X-Consul-Token"
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_OWN_ID = re.compile(r'ID == "([^"]+)"')
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def seconds(duration: str) -> float:
    """A duration as Go writes it."""
    return sum(float(number) * _UNITS_S[unit] for number, unit in re.findall(r"([0-9.]+)(ms|s|m|h)", duration))


@dataclass
class Registered:
    """A service, its one check, and since when that is critical."""

    service: dict[str, Any]
    check: dict[str, Any]
    status: str
    beat_s: float
    critical_s: float | None
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ttl_s(self) -> float | None:
        return seconds(self.check["ttl"]) if "ttl" in self.check else None


class ConsulServer:
    """`accepted`: the token that may do everything; None: whoever comes. `failing`: each call is answered 500.
    `hanging`: calls get no answer while it is set. `answers`: what to send, in turn, in place of the next lists.
    `asked`: name and index of each list that was asked for. `beats`: how often nodes said that they live."""

    def __init__(self, clock: Clock | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.clock = clock or SystemClock()
        self._tls = tls
        self.port = 0
        self.accepted: str | None = None
        self.failing = False
        self.hanging = False
        self.answers: list[str] = []
        self.asked: list[tuple[str, int]] = []
        self.index = 10
        self.beats = 0
        self.registered: dict[str, Registered] = {}
        self._changed = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen: on any free port the first time, on the same one again later."""
        application = web.Application(middlewares=[self._moods])
        application.router.add_put("/v1/agent/service/register", self._register)
        application.router.add_put("/v1/agent/service/deregister/{id}", self._deregister)
        application.router.add_put("/v1/agent/check/pass/{id}", self._pass)
        application.router.add_get("/v1/agent/services", self._services)
        application.router.add_get("/v1/health/service/{name}", self._health)
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=0.01)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Go away in the middle of whatever is asked; what is registered is kept."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def forget(self) -> None:
        """Lose all registrations, as an agent that was made anew."""
        for id_ in list(self.registered):
            self._remove(id_)

    def restore(self, index: int) -> None:
        """Go on counting from a lower index, as a server restored from a snapshot; questions that wait are answered."""
        self.index = index
        self._wake()

    def put(self, name: str, service: dict[str, Any]) -> None:
        """Hold an entry that some other program registered: without a check, so it passes."""
        id_ = str(service.get("ID", name))
        self._add(id_, Registered({"ID": id_, "Service": name, **service}, {}, "passing", 0.0, None))

    def status(self, id_: str) -> str | None:
        """What the check of a service says now."""
        self._age()
        held = self.registered.get(id_)
        return held.status if held else None

    async def run(self) -> None:
        """Keep the checks that ask nodes; until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            await asyncio.Event().wait()

    @web.middleware
    async def _moods(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        while self.hanging:
            await asyncio.sleep(0.01)
        if self.failing:
            return web.Response(status=500, text="No cluster leader")
        token = request.headers.get(TOKEN_HEADER, "")
        if self.accepted is not None and token not in ("", self.accepted):
            return web.Response(status=403, text="rpc error making call: ACL not found")
        return await handler(request)

    def _may(self, request: web.Request) -> bool:
        return self.accepted in (None, request.headers.get(TOKEN_HEADER, ""))

    def _refused(self, name: str) -> web.Response:
        text = f"Permission denied: anonymous token lacks permission 'service:write' on {json.dumps(name)}"
        return web.Response(status=403, text=text)

    async def _register(self, request: web.Request) -> web.Response:
        try:
            body = {key.lower(): value for key, value in json.loads(await request.text()).items()}
            (check,) = [{key.lower(): value for key, value in check.items()} for check in body.get("checks", [])]
        except (ValueError, AttributeError) as exc:
            return web.Response(status=400, text=f"Request decode failed: {exc}")
        if not body.get("name"):
            return web.Response(status=400, text="Missing service name")
        if not self._may(request):
            return self._refused(body["name"])
        id_ = body.get("id") or body["name"]
        service = {
            "ID": id_,
            "Service": body["name"],
            "Address": body.get("address", ""),
            "Port": body.get("port", 0),
            "Meta": body.get("meta") or {},
        }
        status = check.get("status", "critical")
        now_s = self.clock.monotonic_s()
        self._add(id_, Registered(service, check, status, now_s, now_s if status == "critical" else None))
        return web.Response()

    def _add(self, id_: str, registered: Registered) -> None:
        self._remove(id_)
        self.registered[id_] = registered
        registered.service["ModifyIndex"] = self._change()
        if "grpc" in registered.check and self._group is not None:
            self._group.create_task(self._ask(registered))

    async def _deregister(self, request: web.Request) -> web.Response:
        id_ = request.match_info["id"]
        if not self._may(request):
            return self._refused(id_)
        if id_ not in self.registered:
            text = f"Unknown service ID {json.dumps(id_)}. Ensure that the service ID is passed, not the service name."
            return web.Response(status=404, text=text)
        self._remove(id_)
        return web.Response()

    def _remove(self, id_: str) -> None:
        held = self.registered.pop(id_, None)
        if held is not None:
            held.stop.set()
            self._change()

    async def _pass(self, request: web.Request) -> web.Response:
        self._age()
        check_id = request.match_info["id"]
        held = self.registered.get(check_id.removeprefix("service:"))
        if not self._may(request):
            return self._refused(check_id)
        if held is None or not held.check or not check_id.startswith("service:"):
            text = f"Unknown check ID {json.dumps(check_id)}. Ensure that the check ID is passed, not the check name."
            return web.Response(status=404, text=text)
        if held.ttl_s is None:
            return web.Response(status=500, text=f"CheckID {json.dumps(check_id)} does not have associated TTL")
        held.beat_s = self.clock.monotonic_s()
        self.beats += 1
        self._set(held, "passing")
        return web.Response()

    def _set(self, held: Registered, status: str) -> None:
        if status != held.status:
            held.status = status
            held.critical_s = self.clock.monotonic_s() if status == "critical" else None
            self._change()

    async def _services(self, request: web.Request) -> web.Response:
        self._age()
        wanted = _OWN_ID.fullmatch(request.query.get("filter", ""))
        if wanted is None:
            return web.Response(status=400, text="Failed to create boolean expression evaluator")
        held = self.registered.get(wanted[1]) if self._may(request) else None
        return web.json_response({wanted[1]: held.service} if held else {})

    async def _health(self, request: web.Request) -> web.Response:
        name, index = request.match_info["name"], int(request.query.get("index", "0"))
        self.asked.append((name, index))
        if self.answers:
            return web.Response(text=self.answers.pop(0), headers={"X-Consul-Index": str(self.index)})
        self._age()
        if index:
            await self._newer(index, seconds(request.query.get("wait", "5m")))
        found = [
            {
                "Node": {"Node": "test", "Address": "127.0.0.1"},
                "Service": held.service,
                "Checks": [{"CheckID": f"service:{id_}", "Status": held.status, "ServiceID": id_}],
            }
            for id_, held in sorted(self.registered.items())
            if held.service["Service"] == name and (held.status == "passing" or "passing" not in request.query)
        ]
        answer = found if self._may(request) else []  # what a token may not see is left out, and that is no error
        return web.json_response(answer, headers={"X-Consul-Index": str(self.index)})

    async def _newer(self, index: int, wait_s: float) -> None:
        """Wait for a newer index, for a restored server, or for `wait_s`."""
        changed = self._changed
        if self.index <= index:
            async with asyncio.TaskGroup() as group:
                waits = [group.create_task(self.clock.sleep(wait_s)), group.create_task(_until(changed))]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                for wait in waits:
                    wait.cancel()
        self._age()

    async def _ask(self, held: Registered) -> None:
        """The check of a node by gRPC."""
        async with grpc.aio.insecure_channel(held.check["grpc"]) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            while not held.stop.is_set():
                status = "critical"
                with contextlib.suppress(grpc.aio.AioRpcError):
                    answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
                    status = "passing" if answer.status == health_pb2.HealthCheckResponse.SERVING else "critical"
                self._set(held, status)
                await self.clock.sleep(seconds(held.check["interval"]))

    def _age(self) -> None:
        """Checks that nobody passed turn critical, and what was critical for long is taken out."""
        now_s = self.clock.monotonic_s()
        for id_, held in list(self.registered.items()):
            if held.ttl_s is not None and held.status == "passing" and now_s - held.beat_s >= held.ttl_s:
                self._set(held, "critical")
            after = held.check.get("deregistercriticalserviceafter")
            if after and held.critical_s is not None and now_s - held.critical_s >= seconds(after):
                self._remove(id_)

    def _change(self) -> int:
        self.index += 1
        self._wake()
        return self.index

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


async def _until(event: asyncio.Event) -> None:
    await event.wait()


@contextlib.asynccontextmanager
async def consul_server(clock: Clock | None = None, tls: ssl.SSLContext | None = None) -> AsyncIterator[ConsulServer]:
    """A server that listens, until the block ends."""
    server = ConsulServer(clock, tls)
    async with asyncio.TaskGroup() as group:
        checks = group.create_task(server.run())
        await server.start()
        try:
            yield server
        finally:
            await server.stop()
            checks.cancel()
