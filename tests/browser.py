"""A real browser for tests: the Chromium or Chrome of this machine, without a window, driven by Playwright.

Playwright is for the tests alone. It drives the browser that is installed and fetches none, its wheel (50 MB, some
seconds) brings all it needs, and its waits for what a page shows have deadlines. Selenium would want a chromedriver of
the browser's very version; the DevTools protocol by hand would be some hundred lines of ours. The browser is a package
of the system (Debian: `chromium`), and where there is none the tests that need it are skipped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.async_api import ConsoleMessage, Locator, Page, Request, Response, async_playwright, expect

VARIABLE = "ADAPTIVEGEN_TEST_BROWSER"
NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE_MS = 15_000  # every wait of a page ends by then
START_MS = 60_000

expect.set_options(timeout=PATIENCE_MS)


def find_browser() -> str | None:
    """The program that the variable names, else the first that is found."""
    named = os.environ.get(VARIABLE)
    return named or next((found for name in NAMES if (found := shutil.which(name))), None)


needs_browser = pytest.mark.skipif(
    find_browser() is None, reason=f"no browser: none of {', '.join(NAMES)} is installed, and {VARIABLE} names none"
)


@dataclass
class Visit:
    """A page that is open. problems: what a console or a list of requests would show in red; loads: of the page."""

    page: Page
    problems: list[str] = field(default_factory=list)
    loads: int = 0

    def watch(self) -> None:
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.problems.append(f"thrown: {error}"))
        self.page.on("requestfailed", lambda request: self.problems.append(f"failed: {request.url} {request.failure}"))
        self.page.on("response", self._answered)
        self.page.on("request", self._asked)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.type}: {message.text}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self.problems.append(f"{response.status}: {response.url}")

    def _asked(self, request: Request) -> None:
        self.loads += request.is_navigation_request() and request.frame == self.page.main_frame

    def at(self, name: str) -> Locator:
        """The element with this id."""
        return self.page.locator(f"#{name}")

    def row(self, table: str, name: str) -> Locator:
        """The line of a table that has a cell with just this text."""
        named = self.page.get_by_role("cell", name=name, exact=True)
        return self.at(table).get_by_role("row").filter(has=named)

    async def cell(self, table: str, name: str, heading: str) -> Locator:
        """The cell of a line below the first heading of that name."""
        headings = await self.at(table).get_by_role("columnheader").all_inner_texts()
        return self.row(table, name).get_by_role("cell").nth(headings.index(heading))


@asynccontextmanager
async def visiting(url: str = "", **context: Any) -> AsyncIterator[Visit]:
    """A page at this address, in a browser and a profile of its own that are gone afterwards, whatever happened.

    context: options of Playwright's `new_context`.
    """
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=find_browser(),
            chromium_sandbox=os.geteuid() != 0,  # a browser of root's has none
            timeout=START_MS,
        )
        try:
            profile = await browser.new_context(**context)
            profile.set_default_timeout(PATIENCE_MS)
            visit = Visit(await profile.new_page())
            visit.watch()
            if url:
                await visit.page.goto(url)
            yield visit
        finally:
            await browser.close()
