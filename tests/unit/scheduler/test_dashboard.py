"""The dashboard's files: all there, nothing from elsewhere, nothing a browser would have to be allowed."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import urljoin

import pytest

from scheduler.api.openapi import STREAM_PATH
from scheduler.api.pages import HEADERS, PAGE, load_pages

FILES = load_pages()
TEXTS = {path: content.decode() for path, (content, _) in FILES.items()}


class Page(HTMLParser):
    """Collects what a page refers to and names, and its tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.refers: list[str] = []
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        self.refers += [value for name in ("src", "href") if (value := found.get(name))]
        self.ids += [value for name, value in attrs if name == "id" and value]


def test_the_page_refers_only_to_files_that_are_served() -> None:
    page = Page(TEXTS[PAGE])
    assert {urljoin(PAGE, reference) for reference in page.refers} == set(FILES) - {PAGE}
    stream = re.findall(r'const STREAM = "(.*)";', TEXTS[f"{PAGE}/app.js"])
    assert [urljoin(PAGE, path) for path in stream] == [STREAM_PATH]


def test_every_element_the_script_looks_for_is_in_the_page() -> None:
    ids, script = Page(TEXTS[PAGE]).ids, TEXTS[f"{PAGE}/app.js"]
    assert len(set(ids)) == len(ids)
    tables = re.findall(r"^  (\w+): \{$", script, flags=re.MULTILINE)
    more = [f"{table}-more" for table in ("nodes", "pools", "tenants", "paces")]
    assert len(tables) == 8
    assert {*re.findall(r'at\("([\w-]+)"\)', script), *tables, *more} == set(ids)


def test_the_page_needs_nothing_that_its_policy_forbids() -> None:
    for tag, attributes in Page(TEXTS[PAGE]).tags:
        assert tag != "style"
        assert not any(name == "style" or name.startswith("on") for name in attributes)
        assert tag != "script" or attributes.get("src")
    assert "default-src 'self'" in HEADERS["content-security-policy"]
    assert "unsafe" not in HEADERS["content-security-policy"]


@pytest.mark.parametrize("path", sorted(FILES))
def test_nothing_comes_from_elsewhere_and_no_text_becomes_markup(path: str) -> None:
    text = TEXTS[path].replace("http://www.w3.org/2000/svg", "")  # a name, not an address
    assert "//" not in re.sub(r"(?m)(^|\s)// .*$", "", text)
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "@import"):
        assert way not in text
