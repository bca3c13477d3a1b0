"""The dashboard of a whole system in a real browser: what a person sees is pushed, and the page is loaded once."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from playwright.async_api import expect

from tests.browser import Visit, needs_browser, visiting
from tests.e2e.system import UpSystem, submit, up

pytestmark = needs_browser

PROMPT = "a red circle moves left over a sunset sky <img src=x onerror=window.ran=1>"
PATIENCE_S = 150.0  # with one test, as slow as its parts may be
ENDED_S = 60.0  # for a video, on a busy machine
RESTARTED_MS = 40_000  # until the scheduler that was killed serves again and the page has found it


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpSystem]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(
            "ADAPTIVEGEN_EDGE_PLACE_BUDGET_S", "5"
        )  # the scheduler decides, however busy this machine is
        with up(tmp_path_factory.mktemp("dashboard"), edges=2) as started:
            yield started


def scheduler_url(system: UpSystem) -> str:
    (scheduler,) = system.endpoints("scheduler")
    return scheduler["http_url"]


@asynccontextmanager
async def watched(system: UpSystem) -> AsyncIterator[Visit]:
    """The dashboard once it is live; all that happens in the block happens without a second load and without errors."""
    async with asyncio.timeout(PATIENCE_S), visiting(f"{scheduler_url(system)}/admin") as visit:
        await expect(visit.at("link")).to_have_text("live")
        yield visit
        assert (visit.loads, visit.problems) == (1, [])


def order(system: UpSystem, path: str, **fields: Any) -> None:
    answer = httpx.post(f"{scheduler_url(system)}/v1/admin/{path}", json=fields, timeout=10)
    assert answer.status_code == 200, answer.text


async def test_nodes_are_shown_with_their_states_and_a_drain_as_it_happens(system: UpSystem) -> None:
    async with watched(system) as visit:
        await expect(visit.page).to_have_title("scheduler-1 - AdaptiveGen")
        await expect(visit.at("healthy")).to_have_text("3 / 3")
        for node, kind, model in (
            ("edge-1", "edge", "pocket-draft"),
            ("edge-2", "edge", "pocket-draft"),
            ("worker-1", "worker", "pocket-cloud"),
        ):
            await expect(await visit.cell("nodes", node, "kind")).to_have_text(kind)
            await expect(await visit.cell("nodes", node, "models")).to_have_text(re.compile(rf"\b{model}\b"))
            await expect(await visit.cell("nodes", node, "state")).to_have_text("healthy")
            await expect(await visit.cell("nodes", node, "state")).to_have_class("good")
            await expect(await visit.cell("nodes", node, "heard")).to_have_text(re.compile(r"^[01]\.\d\d s ago$"))

        order(system, "nodes/edge-2/drain")
        try:
            await expect(await visit.cell("nodes", "edge-2", "state")).to_have_text("draining")
            await expect(await visit.cell("nodes", "edge-2", "state")).to_have_class("warn")
            await expect(visit.at("healthy")).to_have_text("2 / 3")
            first = visit.at("nodes").get_by_role("row").nth(1)  # below the headings
            await expect(first).to_contain_text("edge-2")  # who needs a look comes first
        finally:
            order(system, "nodes/edge-2/drain", undo=True)
        await expect(await visit.cell("nodes", "edge-2", "state")).to_have_text("healthy")
        await expect(visit.at("healthy")).to_have_text("3 / 3")


async def test_a_request_is_shown_with_its_plan_its_reasons_and_what_became_of_its_prediction(system: UpSystem) -> None:
    async with watched(system) as visit:
        await expect(visit.at("plans")).to_have_text("none yet")
        await expect(visit.at("compared-more")).to_have_text("No job has ended yet.")
        with system.client() as client:
            video = submit(client, PROMPT, seed=11)

        await expect(visit.at("plans")).to_have_text(re.compile(r"^refine\s*1 \(100 %\)$"))
        await expect(visit.at("decided")).to_have_text("1")
        await expect(visit.at("refused")).to_have_text("0")
        await expect(await visit.cell("decisions", video["id"], "plan")).to_have_text("refine")
        await expect(await visit.cell("decisions", video["id"], "tenant")).to_have_text("local")
        for heading, shown in (("draft", r"\d s$"), ("final", r"\d s$"), ("QoE", r"^[1-5]\.\d\d$")):
            await expect(await visit.cell("decisions", video["id"], heading)).to_have_text(re.compile(shown))
        reasons = (await visit.cell("decisions", video["id"], "reasons")).locator("details")
        await reasons.locator("summary").click()
        await expect(reasons.get_by_role("listitem").first).to_be_visible()
        opened = await reasons.get_by_role("listitem").all_inner_texts()
        assert opened[0] == await reasons.locator("summary").inner_text()

        parts = visit.at("compared").locator(".part")
        await expect(parts).to_have_text(
            ["first look (1 job)", "draft (1 job)", "final (1 job)", "QoE, 1 to 5 (1 job)"], timeout=1000 * ENDED_S
        )
        labels = await visit.at("compared").locator("span:not(.part):not(.value)").all_inner_texts()
        assert labels == 4 * ["p50 predicted", "p50 observed", "p95 predicted", "p95 observed"]
        values = await visit.at("compared").locator(".value").all_inner_texts()
        assert all(re.fullmatch(r"\d+\.\d\d s|\d+\.\d s", value) for value in values[:12]), values
        assert all(1 <= float(value) <= 5 for value in values[12:]), values
        await expect(visit.at("open")).to_have_text("0")
        await expect(reasons.get_by_role("listitem").first).to_be_visible()  # what was opened stays so
        assert await visit.page.evaluate("window.ran") is None


async def test_a_silent_scheduler_is_told_and_one_that_was_started_again_is_shown(system: UpSystem) -> None:
    async with watched(system) as visit:
        await expect(visit.at("healthy")).to_have_text("3 / 3")
        pid = system.pid("scheduler-1")
        assert pid is not None
        system.kill("scheduler-1", signal.SIGSTOP)
        told = re.compile(r"^nothing new for \d+ s; trying to reach the scheduler$")
        await expect(visit.at("link")).to_have_text(told)
        await expect(visit.at("nodes")).to_contain_text("worker-1")  # what was known last
        system.kill("scheduler-1")

        await expect(visit.at("link")).to_have_text("live", timeout=RESTARTED_MS)
        assert system.pid("scheduler-1") not in (None, pid)
        await expect(visit.at("decided")).to_have_text("0")  # of the new one
        await expect(visit.at("healthy")).to_have_text("3 / 3", timeout=RESTARTED_MS)
        assert all("/v1/admin/stream" in problem or "ERR_" in problem for problem in visit.problems), visit.problems
        visit.problems.clear()
