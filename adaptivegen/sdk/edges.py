"""Which edge a client talks to: the addresses it knows, in order of preference. Pure.

Decides the order after a failure: the edge that cannot be reached goes to the end, and comes round again.
"""

from __future__ import annotations

from collections.abc import Sequence

from adaptivegen.errors import InvalidRequest


class Edges:
    """Base URLs, the preferred one first."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = [check_base_url(url) for url in urls]
        if not self._urls:
            raise InvalidRequest(
                "no edge is known; allowed: a base_url or an endpoints_file naming one", param="base_url"
            )

    @property
    def current(self) -> str:
        """The edge to ask now."""
        return self._urls[0]

    @property
    def urls(self) -> tuple[str, ...]:
        """All of them, in the present order."""
        return tuple(self._urls)

    def failed(self, url: str) -> None:
        """`url` could not be reached. Only the present edge moves: late news about another changes nothing."""
        if url == self._urls[0]:
            self._urls.append(self._urls.pop(0))


def check_base_url(url: object) -> str:
    """`url` without a trailing slash; raises InvalidRequest unless it is an http(s) address."""
    if (
        not isinstance(url, str)
        or not url.startswith(("http://", "https://"))
        or not url.partition("://")[2].strip("/")
    ):
        raise InvalidRequest.field("base_url", url, "an http:// or https:// address")
    return url.rstrip("/")


def given_urls(base_url: str | Sequence[str] | None) -> list[str]:
    """The addresses given directly."""
    if base_url is None:
        return []
    return [base_url] if isinstance(base_url, str) else list(base_url)
