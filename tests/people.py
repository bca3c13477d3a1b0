"""People and nodes with certificates of one authority, and a scheduler that knows them by these."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import trustme

from adaptivegen.rpc.channel import ClientTls
from tests.schedulers import free_port, scheduler


@dataclass
class People:
    """Certificates of one authority, as files, by the name that was given."""

    ca: trustme.CA
    folder: Path

    def issue(self, who: str, *names: str, common_name: str | None = None) -> ClientTls:
        issued = self.ca.issue_cert(*names, common_name=common_name)
        cert, key = self.folder / f"{who}.pem", self.folder / f"{who}-key.pem"
        issued.private_key_pem.write_to_path(key)
        issued.cert_chain_pems[0].write_to_path(cert)
        return ClientTls(ca=self.folder / "ca.pem", cert=cert, key=key)

    def http(self, port: int, shown: ClientTls | None) -> httpx.AsyncClient:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        if shown is not None and shown.cert is not None:
            context.load_cert_chain(shown.cert, shown.key)
        return httpx.AsyncClient(base_url=f"https://127.0.0.1:{port}", verify=context, timeout=10.0)


ROLES = {"otto.example": "operator", "Ada": "admin", "mallory.example": "none"}


@asynccontextmanager
async def secured(
    nats_url: str, folder: Path, *, roles: Mapping[str, str] = ROLES, before: tuple[People, int] | None = None
) -> AsyncIterator[tuple[People, str, int]]:
    """A scheduler that knows people by their certificates; its gRPC address and HTTP port.

    before: people and HTTP port of one that has ended, in whose place this one is.
    """
    people, port = before or (People(trustme.CA(), folder), free_port())
    people.ca.cert_pem.write_to_path(folder / "ca.pem")
    node = people.issue("node", "localhost", "127.0.0.1")
    (folder / "roles.json").write_text(json.dumps({"roles": dict(roles)}))
    async with scheduler(
        nats_url,
        folder,
        tls=node,
        http_port=port,
        auth="required",
        tls_cert=node.cert,
        tls_key=node.key,
        tls_client_ca=folder / "ca.pem",
        roles_file=folder / "roles.json",
    ) as running:
        await running.states()
        yield people, running.address, port
