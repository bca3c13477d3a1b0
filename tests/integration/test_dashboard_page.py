"""The dashboard in a real browser, with one scheduler: what is foreign stays text, and who is refused is told why."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import httpx
from playwright.async_api import expect

from adaptivegen.rpc.channel import ClientTls
from scheduler.api.stream import MAX_STREAMS
from scheduler.snapshot import InAll, Snapshot
from tests.browser import Visit, needs_browser, visiting
from tests.people import secured
from tests.schedulers import fleet, free_port, pushing, scheduler
from tests.servers import NatsServer
from tests.unit.scheduler.builders import query, report

pytestmark = needs_browser

HOSTILE = "<img src=x onerror=window.ran=1>"
STREAM = "/v1/admin/stream"


async def nothing_ran(visit: Visit) -> None:
    """No text has become an element, and none was run."""
    assert await visit.page.evaluate("[window.ran === undefined, document.images.length]") == [True, 0]


async def test_nodes_appear_when_they_are_heard_and_what_they_say_stays_text(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    port = free_port()
    async with (
        asyncio.timeout(90),
        scheduler(own_nats.url, tmp_path, http_port=port) as running,
        visiting(f"http://127.0.0.1:{port}/admin") as visit,
    ):
        await expect(visit.at("link")).to_have_text("live")
        await expect(visit.at("nodes")).to_contain_text("none")
        heard = (report("edge-1", models=("pocket-draft", HOSTILE)), report("worker-1"))
        async with fleet(own_nats.url, *heard):
            await expect(visit.at("healthy")).to_have_text("2 / 2")
            await expect(await visit.cell("nodes", "edge-1", "models")).to_have_text(f"pocket-draft, {HOSTILE}")
            decision = await running.place(query(job_id="vid_" + 26 * "0"))
            await expect(await visit.cell("decisions", decision.job_id, "plan")).to_have_text(decision.plan)
            await expect(await visit.cell("decisions", decision.job_id, "reasons")).to_contain_text(decision.reasons[0])
            await nothing_ran(visit)
            assert (visit.loads, visit.problems) == (1, [])


def made(kind: Any) -> Any:
    """A value of this type with one of everything in it: hostile where it is text, else 1."""
    origin, of = get_origin(kind), get_args(kind)
    if origin is tuple:
        return (made(of[0]),)
    if origin is dict:
        return {made(of[0]): made(of[1])}
    if origin in (Union, UnionType):
        return made(of[0])
    if kind in (int, float, bool):
        return kind(1)
    return HOSTILE if kind is str else kind(**{name: made(inner) for name, inner in get_type_hints(kind).items()})


async def test_every_text_that_a_scheduler_may_push_is_shown_as_text() -> None:
    async def take() -> Snapshot:
        snapshot = made(Snapshot)
        assert isinstance(snapshot, Snapshot)
        return snapshot

    async with asyncio.timeout(60), pushing(take) as (_, port), visiting(f"http://127.0.0.1:{port}/admin") as visit:
        await expect(visit.at("scheduler")).to_have_text(HOSTILE)
        await expect(visit.page).to_have_title(f"{HOSTILE} - AdaptiveGen")
        parts = ("nodes", "pools", "tenants", "lines", "gates", "plans", "compared", "accuracies", "paces", "decisions")
        for part in parts:
            await expect(visit.at(part)).to_contain_text(HOSTILE)
        await nothing_ran(visit)
        assert (visit.loads, visit.problems) == (1, [])


async def test_the_browser_keeps_the_page_from_running_or_loading_what_is_foreign_and_from_frames() -> None:
    async def take() -> Snapshot:
        return Snapshot("s", 1, 0, (), (), (), (), (), (), (), (), (), InAll(0, 0, 0, 0, 0))

    async with asyncio.timeout(60), pushing(take) as (_, port), visiting(f"http://127.0.0.1:{port}/admin") as visit:
        await expect(visit.at("link")).to_have_text("live")
        assert visit.problems == []
        await visit.page.evaluate(
            """elsewhere => {
                window.kept = [];
                document.addEventListener("securitypolicyviolation", (event) => kept.push(event.effectiveDirective));
                document.body.insertAdjacentHTML("beforeend", "<img src=x onerror=window.ran=1>");
                const script = document.createElement("script");
                script.textContent = "window.ran = 2";
                document.body.append(script);
                new Image().src = elsewhere;
                fetch(elsewhere).catch(() => {});
            }""",
            f"http://localhost:{port}/admin/style.css",  # the same server by another name is another site, too
        )
        kept = ["connect-src", "img-src", "script-src-attr", "script-src-elem"]
        await visit.page.wait_for_function("new Set(kept).size >= 4")
        assert (await visit.page.evaluate("[[...new Set(kept)].sort(), window.ran]")) == [kept, None]

        await visit.page.goto(f"http://localhost:{port}/healthz")
        page = f"http://127.0.0.1:{port}/admin"
        async with visit.page.expect_event("requestfailed", lambda request: request.url == page) as framed:
            await visit.page.evaluate(
                "page => { document.body.appendChild(document.createElement('iframe')).src = page; }",
                page,
            )
        assert (await framed.value).failure == "net::ERR_BLOCKED_BY_RESPONSE"


async def test_who_finds_no_place_is_told_so_and_follows_as_soon_as_there_is_one(
    own_nats: NatsServer, tmp_path: Path
) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    async with (
        asyncio.timeout(90),
        scheduler(own_nats.url, tmp_path, http_port=port),
        httpx.AsyncClient(base_url=address, timeout=10.0) as http,
        visiting() as visit,
    ):
        async with AsyncExitStack() as others:
            for _ in range(MAX_STREAMS):
                await others.enter_async_context(http.stream("GET", STREAM))
            await visit.page.goto(f"{address}/admin")
            await expect(visit.at("link")).to_have_text(f"refused: {MAX_STREAMS} streams are open; asking again")
        await expect(visit.at("link")).to_have_text("live")
        assert visit.loads == 1


def shown(certificate: ClientTls, port: int) -> dict[str, Any]:
    """Options of a browser that has a person's certificate."""
    held = {"origin": f"https://127.0.0.1:{port}", "certPath": certificate.cert, "keyPath": certificate.key}
    return {"client_certificates": [held], "ignore_https_errors": True}  # the authority is this test's


async def test_who_may_not_look_is_told_so_and_who_may_no_longer_too(own_nats: NatsServer, tmp_path: Path) -> None:
    denied = "vera.example has the role none; this needs viewer"
    async with asyncio.timeout(90), AsyncExitStack() as ends:
        async with secured(own_nats.url, tmp_path) as (people, _, port):
            vera = people.issue("vera", "vera.example")
            page = f"https://127.0.0.1:{port}/admin"
            visit = await ends.enter_async_context(visiting(page, **shown(vera, port)))
            await expect(visit.at("link")).to_have_text("live")
            assert visit.problems == []
        roles = {"vera.example": "none"}
        async with secured(own_nats.url, tmp_path, roles=roles, before=(people, port)):
            await expect(visit.at("link")).to_have_text(f"refused: {denied}; asking again")
            await expect(visit.at("scheduler")).to_have_text("scheduler-1")
            assert visit.loads == 1
            await visit.page.goto(page)
            await expect(visit.page.locator("body")).to_contain_text(denied)
