"""The files of the dashboard, and the headers that keep a page of ours from doing or loading anything foreign."""

from __future__ import annotations

from importlib.resources import files

PAGE = "/admin"
CONTENT_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


def load_pages() -> dict[str, tuple[bytes, str]]:
    """Content and type of every file, by its path; the page itself is at PAGE."""
    found: dict[str, tuple[bytes, str]] = {}
    for file in files("scheduler").joinpath("dashboard").iterdir():
        kind = CONTENT_TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            path = PAGE if file.name == "index.html" else f"{PAGE}/{file.name}"
            found[path] = (file.read_bytes(), kind)
    return found
