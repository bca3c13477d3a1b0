"""The TLS of a node's gRPC, from its settings: what it shows as a server, what it demands and shows as a client.

The files are checked here, where their settings are known by name: later they would be a library's failure.
"""

from __future__ import annotations

import ssl

from adaptivegen.rpc.channel import ClientTls
from adaptivegen.rpc.server import ServerTls
from adaptivegen.settings import ServiceSettings


def server_tls(settings: ServiceSettings, *, mutual: bool) -> ServerTls | None:
    """What the gRPC server shows, None without a certificate. With `mutual`, peers must show one of `tls_client_ca`.
    Raises SettingsInvalid naming the setting whose file is none."""
    check_files(settings)
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return ServerTls(cert=settings.tls_cert, key=settings.tls_key, client_ca=settings.tls_client_ca if mutual else None)


def client_tls(settings: ServiceSettings) -> ClientTls | None:
    """How peers are called: by TLS where their CA is known, else in the clear. Raises as `server_tls`."""
    check_files(settings)
    if settings.tls_client_ca is None:
        return None
    return ClientTls(ca=settings.tls_client_ca, cert=settings.tls_cert, key=settings.tls_key)


def check_files(settings: ServiceSettings) -> None:
    """Raise SettingsInvalid naming the setting whose file is no certificate, no key, or not the other's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if settings.tls_cert is not None and settings.tls_key is not None:
        try:
            context.load_cert_chain(settings.tls_cert, settings.tls_key)
        except (OSError, ssl.SSLError) as exc:
            limit = f"a certificate (PEM) with its private key in tls_key ({exc})"
            raise settings.refuse("tls_cert", limit) from exc
    if settings.tls_client_ca is not None:
        try:
            context.load_verify_locations(settings.tls_client_ca)
        except (OSError, ssl.SSLError) as exc:
            raise settings.refuse("tls_client_ca", f"certificates (PEM) ({exc})") from exc
