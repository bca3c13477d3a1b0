"""A scheduler over HTTP: is it alive, is it ready, its metrics for Prometheus, and what is served beside (`api`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from adaptivegen.errors import AdaptiveGenError, InternalError
from adaptivegen.http_json import failed, unrouted
from adaptivegen.local_only import check_local
from adaptivegen.telemetry import get_logger

Endpoint = Callable[[Request], Awaitable[Response]]


class HttpApi:
    """Serves a registry. local_names: where there are no certificates, the names by which this machine may be asked;
    beside: method, path and endpoint of what else is served."""

    def __init__(
        self,
        *,
        registry: CollectorRegistry,
        ready: Callable[[], bool],
        local_names: frozenset[str] | None,
        beside: Iterable[tuple[str, str, Endpoint]] = (),
    ) -> None:
        self._registry = registry
        self._ready = ready
        self._local_names = local_names
        self._beside = tuple(beside)

    def application(self) -> Starlette:
        """The application, to be served by uvicorn."""
        own = [("/healthz", self.healthz), ("/readyz", self.readyz), ("/metrics", self.metrics)]
        routes = [*(("GET", path, endpoint) for path, endpoint in own), *self._beside]
        return Starlette(
            routes=[Route(path, self._guarded(endpoint), methods=[method]) for method, path, endpoint in routes],
            exception_handlers={HTTPException: unrouted},
        )

    async def healthz(self, request: Request) -> Response:
        """200 while the process lives."""
        return JSONResponse({"status": "alive"})

    async def readyz(self, request: Request) -> Response:
        """200 when requests are welcome, else 503."""
        ready = self._ready()
        return JSONResponse({"status": "ready" if ready else "not ready"}, status_code=200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        """Prometheus text."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        """Nothing for web pages, and errors as JSON."""

        async def guarded(request: Request) -> Response:
            try:
                if self._local_names is not None:
                    hosts, origins = request.headers.getlist("host"), request.headers.getlist("origin")
                    check_local(hosts=hosts, origins=origins, names=self._local_names)
                return await endpoint(request)
            except AdaptiveGenError as exc:
                return failed(exc)
            except Exception as exc:
                get_logger().error("unexpected_error", path=request.url.path, exc_info=exc)
                return failed(InternalError(f"{type(exc).__name__}; the log has it"))

        return guarded
