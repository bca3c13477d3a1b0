"""Which requests a server without keys takes for those of this machine."""

import pytest

from adaptivegen.errors import PermissionDenied
from adaptivegen.local_only import NAMES, check_local, check_same_origin, own_names


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:65535", "[::1]", "LocalHost:80"])
def test_this_machines_names_are_taken(host: str) -> None:
    check_local(hosts=[host], origins=[], names=NAMES)


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [""],
        ["evil.example"],
        ["evil.example:8080"],
        ["localhost.evil.example"],
        ["evil.example#localhost"],
        ["localhost@evil.example"],
        ["localhost:80:80"],
        ["127.0.0.1.evil.example:80"],
        ["127.0.0.1, evil.example"],
        ["localhost", "evil.example"],
        ["::1"],
        ["[::1"],
        ["localhost\n"],
        ["localhost:99999999"],
        ["10.0.0.7:80"],
    ],
)
def test_any_other_host_is_refused(hosts: list[str]) -> None:
    with pytest.raises(PermissionDenied) as refused:
        check_local(hosts=hosts, origins=[], names=NAMES)
    assert refused.value.param == "host"


@pytest.mark.parametrize("origin", ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:8080"])
def test_a_page_of_this_machine_may_ask(origin: str) -> None:
    check_local(hosts=["localhost:1"], origins=[origin], names=NAMES)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "http://evil.example",
        "https://evil.example:8080",
        "http://localhost.evil.example",
        "http://localhost@evil.example",
        "http://evil.example/localhost",
        "file://",
        "chrome-extension://localhost",
        "localhost",
    ],
)
def test_a_page_of_any_other_origin_is_refused(origin: str) -> None:
    for origins in ([origin], ["http://localhost", origin]):
        with pytest.raises(PermissionDenied) as refused:
            check_local(hosts=["localhost:1"], origins=origins, names=NAMES)
        assert refused.value.param == "origin"


def test_the_settings_own_names_are_taken_too() -> None:
    names = own_names("127.0.0.2", "Studio.Local", "", "[::1]")
    assert names == NAMES | {"127.0.0.2", "studio.local"}
    check_local(hosts=["studio.local:8080"], origins=["http://127.0.0.2"], names=names)


@pytest.mark.parametrize(
    ("host", "origins"),
    [
        ("localhost:8080", []),
        ("localhost:8080", ["http://localhost:8080"]),
        ("Ops.example", ["https://ops.example"]),
        ("[::1]:80", ["http://[::1]:80"]),
    ],
)
def test_programs_and_pages_of_this_very_server_may_ask(host: str, origins: list[str]) -> None:
    check_same_origin(hosts=[host], origins=origins)


@pytest.mark.parametrize(
    ("hosts", "origins"),
    [
        (["localhost:8080"], ["http://localhost:3000"]),  # another program of this machine
        (["localhost:8080"], ["http://127.0.0.1:8080"]),
        (["localhost:8080"], ["null"]),
        (["localhost:8080"], [""]),
        (["localhost:8080"], ["file://localhost:8080"]),
        (["ops.example"], ["https://evil.example"]),
        (["ops.example"], ["https://ops.example.evil.example"]),
        (["ops.example"], ["https://ops.example", "https://evil.example"]),
        (["ops.example", "evil.example"], ["https://evil.example"]),
        ([], ["https://ops.example"]),
    ],
)
def test_pages_of_any_other_are_refused(hosts: list[str], origins: list[str]) -> None:
    with pytest.raises(PermissionDenied) as refused:
        check_same_origin(hosts=hosts, origins=origins)
    assert refused.value.param == "origin"


@pytest.mark.parametrize(
    ("site", "mode"),
    [("", ""), ("none", "navigate"), ("same-origin", "cors"), ("same-origin", "no-cors"), ("cross-site", "navigate")],
)
def test_our_own_page_and_a_link_that_somebody_follows_may_ask(site: str, mode: str) -> None:
    check_same_origin(hosts=["localhost:8080"], origins=[], site=site, mode=mode)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "x" * 200])
@pytest.mark.parametrize("mode", ["no-cors", "cors", "websocket", ""])
def test_what_a_page_elsewhere_loads_without_an_origin_is_refused(site: str, mode: str) -> None:
    with pytest.raises(PermissionDenied) as refused:
        check_same_origin(hosts=["localhost:8080"], origins=[], site=site, mode=mode)
    assert refused.value.param == "sec-fetch-site"
