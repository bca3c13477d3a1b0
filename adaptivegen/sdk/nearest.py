"""Finding edges: the addresses given, or those in an endpoints file, ordered by how fast each answers. Blocking.

Decides the order by one round trip to every edge at once; an edge that does not answer comes last, not out, since it
may be back by the time it is needed.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from adaptivegen.clock import SystemClock
from adaptivegen.errors import InvalidRequest, NodeUnavailable
from adaptivegen.sdk.edges import Edges, check_base_url, given_urls

PROBE_TIMEOUT_S = 2.0
_MAX_PROBED = 16


def find_edges(base_url: str | Sequence[str] | None, endpoints_file: str | os.PathLike[str] | None) -> Edges:
    """The edges to talk to, nearest first. Raises InvalidRequest when none is named, NodeUnavailable when several are
    and none answers, or when the endpoints file is not there (the system is not running)."""
    urls = [check_base_url(url) for url in given_urls(base_url)]
    if not urls and endpoints_file is not None:
        urls = read_endpoints(Path(endpoints_file))
    if len(urls) < 2:
        return Edges(urls)  # nothing to choose; the first call finds out whether it is there
    urls = urls[:_MAX_PROBED]
    with ThreadPoolExecutor(max_workers=len(urls), thread_name_prefix="adaptivegen-probe") as pool:
        waits_s = dict(zip(urls, pool.map(probe_s, urls), strict=True))
    if all(math.isinf(wait_s) for wait_s in waits_s.values()):
        raise NodeUnavailable(f"no edge answers: {', '.join(urls)}")
    return Edges(sorted(urls, key=waits_s.__getitem__))


def probe_s(url: str) -> float:
    """Seconds until an edge said it is ready; infinite when it did not within `PROBE_TIMEOUT_S`."""
    clock = SystemClock()
    started_s = clock.monotonic_s()
    try:
        ready = httpx.get(f"{url}/readyz", timeout=PROBE_TIMEOUT_S).is_success
    except httpx.HTTPError:
        return math.inf
    return clock.monotonic_s() - started_s if ready else math.inf


def read_endpoints(path: Path) -> list[str]:
    """The addresses of the edges a running system lists; raises NodeUnavailable without a system, InvalidRequest for
    a file that is not such a list."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise NodeUnavailable(f"no system is running from {path.parent}: {path.name}: {exc.strerror}") from exc
    return edges_of(text, source=str(path))


def edges_of(text: str, *, source: str) -> list[str]:
    """The HTTP addresses in `{"endpoints": [{"kind": "edge", "http_url": ...}, ...]}`; raises InvalidRequest."""
    limit = f"a list of endpoints in {source}"
    try:
        listed = json.loads(text)["endpoints"]
        urls = [entry["http_url"] for entry in listed if entry.get("kind") == "edge" and entry.get("http_url")]
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise InvalidRequest.field("endpoints_file", text[:40], limit) from exc
    if not urls:
        raise NodeUnavailable(f"{source} lists no edge")
    return [check_base_url(url) for url in urls]
