"""The broker over TLS, with users, tokens and credentials files: what is let in, and how a refusal is told."""

import asyncio
import base64
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nkeys
import pytest
import trustme

from adaptivegen.bus.nats import NatsBus
from adaptivegen.errors import BrokerUnavailable, SettingsInvalid, Unauthenticated
from cli.system.broker import find_binary
from cli.system.ports import free_ports

Broker = Callable[[str], int]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """Starts a nats-server with these lines of configuration; returns its port."""
    started: list[subprocess.Popen[bytes]] = []

    def start(lines: str) -> int:
        port = free_ports(1)[0]
        config = tmp_path / "nats.conf"
        config.write_text(f'listen: "127.0.0.1:{port}"\n{lines}\n', encoding="utf-8")
        log = (tmp_path / "nats.log").open("wb")
        started.append(subprocess.Popen([str(find_binary(None, "")), "-c", str(config)], stdout=log, stderr=log))
        until_s = time.monotonic() + 20
        while b"Server is ready" not in (tmp_path / "nats.log").read_bytes():
            assert time.monotonic() < until_s, (tmp_path / "nats.log").read_text()
            time.sleep(0.02)
        return port

    yield start
    for process in started:
        process.kill()
        process.wait()


async def heard(bus: NatsBus) -> bytes:
    """What comes back through the broker."""
    await bus.start()
    try:
        subscription = await bus.subscribe("x.y")
        await bus.publish("x.y", b"hello")
        async with asyncio.timeout(5):
            return (await subscription.__aiter__().__anext__()).data
    finally:
        await bus.close()


def tls_lines(folder: Path) -> tuple[str, Path, Path]:
    """Lines of configuration with a certificate, the CA that signed it, and one that did not."""
    ca, other = trustme.CA(), trustme.CA()
    cert = ca.issue_cert("127.0.0.1")
    cert.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in cert.cert_chain_pems))
    ca.cert_pem.write_to_path(folder / "ca.pem")
    other.cert_pem.write_to_path(folder / "other.pem")
    lines = f'tls {{ cert_file: "{folder}/cert.pem", key_file: "{folder}/key.pem" }}'
    return lines, folder / "ca.pem", folder / "other.pem"


@pytest.mark.parametrize(
    ("more", "scheme"), [("", "tls"), ("\nallow_non_tls: true", "nats")], ids=["TLS only", "TLS or not"]
)
async def test_over_tls_the_brokers_certificate_is_checked_with_the_ca_given(
    broker: Broker, tmp_path: Path, more: str, scheme: str
) -> None:
    lines, ca, other = tls_lines(tmp_path)
    url = f"{scheme}://127.0.0.1:{broker(lines + more)}"
    assert await heard(NatsBus([url], name="n", tls_ca=ca)) == b"hello"
    with pytest.raises(BrokerUnavailable, match=r"(?i)certificate"):
        await heard(NatsBus([url], name="n", tls_ca=other))
    (tmp_path / "none.pem").write_text("not a certificate")
    with pytest.raises(SettingsInvalid, match="nats_ca"):
        await heard(NatsBus([url], name="n", tls_ca=tmp_path / "none.pem"))


@pytest.mark.parametrize(("scheme", "with_ca"), [("tls", False), ("nats", True)])
async def test_where_tls_was_asked_for_no_password_is_sent_without_it(
    tmp_path: Path, scheme: str, with_ca: bool
) -> None:
    _, ca, _ = tls_lines(tmp_path)
    sent: list[bytes] = []

    async def without_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id": "x", "version": "2.10.0", "max_payload": 1000, "auth_required": true}\r\n')
        sent.append(await reader.readline())
        writer.close()

    server = await asyncio.start_server(without_tls, "127.0.0.1", 0)
    async with server:
        url = f"{scheme}://user:secret@127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(BrokerUnavailable, match="TLS"):
            await heard(NatsBus([url], name="n", tls_ca=ca if with_ca else None))
    assert set(sent) == {b""}


async def test_a_user_with_the_right_password_is_let_in_over_tls_and_no_other(broker: Broker, tmp_path: Path) -> None:
    lines, ca, _ = tls_lines(tmp_path)
    port = broker(lines + "\nauthorization { user: node, password: right }")
    assert await heard(NatsBus([f"tls://node:right@127.0.0.1:{port}"], name="n", tls_ca=ca)) == b"hello"
    for login in ("node:wrong@", "other:right@"):
        with pytest.raises(Unauthenticated, match="refused"):
            await heard(NatsBus([f"tls://{login}127.0.0.1:{port}"], name="n", tls_ca=ca))


async def test_a_wrong_password_or_token_is_told_as_a_refusal(broker: Broker) -> None:
    port = broker("authorization { token: right }")
    assert await heard(NatsBus([f"nats://right@127.0.0.1:{port}"], name="n")) == b"hello"
    for login in ("wrong@", "user:wrong@", ""):
        with pytest.raises(Unauthenticated, match="refused"):
            await heard(NatsBus([f"nats://{login}127.0.0.1:{port}"], name="n"))


# ---- credentials files: JWTs as `nsc` makes them --------------------------------------------------------------------


def key(prefix: int) -> nkeys.KeyPair:
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), prefix))


def public(pair: nkeys.KeyPair) -> str:
    return bytes(pair.public_key).decode()


def jwt(issuer: nkeys.KeyPair, subject: nkeys.KeyPair, name: str, nats: dict[str, Any]) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    claims = {"iat": 1, "iss": public(issuer), "sub": public(subject), "name": name, "nats": {"version": 2, **nats}}
    claims["jti"] = base64.b32encode(hashlib.sha256(json.dumps(claims).encode()).digest()).decode().rstrip("=")
    body = f"{part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{part(claims)}"
    return f"{body}.{base64.urlsafe_b64encode(issuer.sign(body.encode())).rstrip(b'=').decode()}"


def credentials(folder: Path, name: str, account: nkeys.KeyPair, user: nkeys.KeyPair) -> Path:
    unlimited = {"subs": -1, "data": -1, "payload": -1}
    token = jwt(account, user, name, {"type": "user", **unlimited})
    path = folder / f"{name}.creds"
    path.write_text(
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{bytes(user.seed).decode()}\n------END USER NKEY SEED------\n"
    )
    return path


async def test_a_credentials_file_lets_its_user_in_and_no_other(broker: Broker, tmp_path: Path) -> None:
    operator, account, stranger = (
        key(nkeys.PREFIX_BYTE_OPERATOR),
        key(nkeys.PREFIX_BYTE_ACCOUNT),
        key(nkeys.PREFIX_BYTE_ACCOUNT),
    )
    limits = {"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "conn": -1, "leaf": -1}
    (tmp_path / "op.jwt").write_text(jwt(operator, operator, "op", {"type": "operator"}))
    accounts = jwt(operator, account, "acc", {"type": "account", "limits": {**limits, "wildcards": True}})
    port = broker(
        f'operator: "{tmp_path}/op.jwt"\nresolver: MEMORY\nresolver_preload: {{ {public(account)}: "{accounts}" }}'
    )
    url = f"nats://127.0.0.1:{port}"
    good = credentials(tmp_path, "good", account, key(nkeys.PREFIX_BYTE_USER))
    assert await heard(NatsBus([url], name="n", credentials=good)) == b"hello"
    bad = credentials(tmp_path, "bad", stranger, key(nkeys.PREFIX_BYTE_USER))
    with pytest.raises(Unauthenticated, match="refused"):
        await heard(NatsBus([url], name="n", credentials=bad))
    for text in ("", "nothing of the kind\n", good.read_text().replace("SUA", "XXX")):
        (tmp_path / "odd.creds").write_text(text)
        with pytest.raises((SettingsInvalid, Unauthenticated)):
            await heard(NatsBus([url], name="n", credentials=tmp_path / "odd.creds"))
