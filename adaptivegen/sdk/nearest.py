"""Finding edges: the addresses given, or those in an endpoints file, ordered by how fast each answers. Blocking.

An edge that is not ready comes after those that are, and one that does not answer last: not out, since it may be back
by the time it is needed.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from adaptivegen.clock import SystemClock
from adaptivegen.discovery.probe import is_there, round_trips
from adaptivegen.errors import InvalidRequest, NodeUnavailable
from adaptivegen.sdk.edges import Edges, check_base_url, given_urls

_MAX_PROBED = 16


def find_edges(base_url: str | Sequence[str] | None, endpoints_file: str | os.PathLike[str] | None) -> Edges:
    """The edges to talk to, nearest first. Raises InvalidRequest when none is named, NodeUnavailable when several are
    and none of them is there, or when the endpoints file is not there (the system is not running)."""
    urls = [check_base_url(url) for url in given_urls(base_url)]
    if not urls and endpoints_file is not None:
        urls = read_endpoints(Path(endpoints_file))
    if len(urls) < 2:
        return Edges(urls)  # nothing to choose; the first call finds out whether it is there
    return Edges(_ordered(urls[:_MAX_PROBED]))


def _ordered(urls: list[str]) -> list[str]:
    """The addresses by their round trip; then those that answer without being ready, then those that do not answer."""
    probing = round_trips(urls, clock=SystemClock(), max_concurrent=_MAX_PROBED)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="adaptivegen-probe") as pool:
        found = pool.submit(asyncio.run, probing).result()  # in a thread: the caller's may have a loop that runs
    if not any(is_there(answer) for answer in found.values()):
        raise NodeUnavailable("no edge answers: " + "; ".join(f"{url}: {why}" for url, why in found.items()))

    def rank(url: str) -> tuple[bool, float]:
        answer = found[url]
        return not is_there(answer), math.inf if isinstance(answer, str) else answer

    return sorted(urls, key=rank)


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
