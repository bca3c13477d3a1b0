"""Ports on loopback: which are free, and whether the one asked for is."""

from __future__ import annotations

import socket

from adaptivegen.errors import SettingsInvalid
from cli.system.layout import HOST


def free_ports(count: int) -> list[int]:
    """Ports free on loopback now; held together while chosen, so that none is given twice."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for candidate in sockets:
            candidate.bind((HOST, 0))
        return [int(candidate.getsockname()[1]) for candidate in sockets]
    finally:
        for candidate in sockets:
            candidate.close()


def check_free(port: int) -> None:
    """Raise SettingsInvalid when another process listens on the port, or when we may not."""
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers: a closing one is no matter
        try:
            candidate.bind((HOST, port))
        except OSError as exc:
            raise SettingsInvalid(f"port {port} cannot be used: {exc.strerror}", param="port") from exc
