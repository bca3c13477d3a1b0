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


async def test_over_tls_the_brokers_certificate_is_checked_with_the_ca_given(broker: Broker, tmp_path: Path) -> None:
    ca = trustme.CA()
    cert = ca.issue_cert("127.0.0.1")
    cert.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in cert.cert_chain_pems))
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    port = broker(f'tls {{ cert_file: "{tmp_path}/cert.pem", key_file: "{tmp_path}/key.pem" }}')
    url = f"tls://127.0.0.1:{port}"
    assert await heard(NatsBus([url], name="n", tls_ca=tmp_path / "ca.pem")) == b"hello"
    other = trustme.CA()
    other.cert_pem.write_to_path(tmp_path / "other.pem")
    with pytest.raises(BrokerUnavailable, match=r"(?i)certificate"):
        await heard(NatsBus([url], name="n", tls_ca=tmp_path / "other.pem"))
    (tmp_path / "none.pem").write_text("not a certificate")
    with pytest.raises(SettingsInvalid, match="nats_ca"):
        await heard(NatsBus([url], name="n", tls_ca=tmp_path / "none.pem"))


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
