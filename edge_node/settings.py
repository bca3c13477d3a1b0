"""Settings of an edge node, from `ADAPTIVEGEN_EDGE_*`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from adaptivegen.discovery.base import is_url
from adaptivegen.nodes import NameOrNone
from adaptivegen.settings import (
    LONGEST_S,
    ModelsMixin,
    ReadableFile,
    SchedulersMixin,
    ServiceSettings,
    SigningMixin,
    is_loopback,
    refused,
)

MIN_PEPPER_CHARS = 16


ACCEPTED_BEYOND = 64  # drafts, beyond those that are to wait


class EdgeSettings(ServiceSettings, SchedulersMixin, SigningMixin, ModelsMixin):
    """An edge drafts with one model and submits to one default cloud model."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_prefix="ADAPTIVEGEN_EDGE_")

    http_port: int = Field(0, ge=0, le=65535, description="Port of the HTTP API; 0 takes a free one.")
    grpc_port: int = Field(0, ge=0, le=65535, description="Port of the gRPC API; 0 takes a free one.")
    insecure_peers: bool = Field(False, description="Call schedulers without TLS although this edge speaks it.")
    place_budget_s: float = Field(0.05, gt=0, le=5, description="Time for `Place`; then the edge decides alone.")
    cache_url: str = Field("", description="Base URL of the media cache; empty: one that registered, or none.")
    draft_model: str = Field("pocket-draft", description="Model card of drafts.")
    cloud_model: str = Field("pocket-cloud", description="Model card of finals when a request names none.")
    pool: str = Field("default", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="Worker pool jobs go to.")
    node_class: NameOrNone = Field(
        "", description="Kind of machine, where edges are of several; spreads of predictions are learned by it."
    )
    threads: int = Field(2, ge=1, le=256, description="CPU threads of the draft model.")
    max_waiting_drafts: int = Field(
        16, ge=1, le=10_000, description="Drafts that may wait for the model; those of other edges up to half as many."
    )
    max_upload_bytes: int = Field(32 * 1024 * 1024, gt=0, le=1024**3, description="Largest request body.")
    max_connections: int = Field(
        512, ge=1, le=100_000, description="HTTP connections; requests on further ones are answered 503."
    )
    media_url_ttl_s: float = Field(3600.0, gt=0, le=LONGEST_S, description="Validity of signed media URLs.")
    spool_dir: Path | None = Field(
        None,
        description="Folder of this edge alone, for what it accepts while it is cut off from broker or store, and for "
        "finals it can repeat then, an absolute path; none: it accepts nothing then, and waits for both at its start.",
    )
    spool_max_jobs: int = Field(1000, ge=1, le=10_000, description="Jobs the spool may hold.")
    spool_max_bytes: int = Field(2 * 1024**3, ge=4 * 1024**2, description="Bytes the spool may hold.")
    known_max_bytes: int = Field(256 * 1024**2, ge=0, description="Bytes of finals kept for repeats while cut off.")
    reach_s: float = Field(
        2.0, gt=0, le=30, description="What a call of broker or store may take, with a spool; then it counts as failed."
    )
    api_keys_file: ReadableFile | None = Field(None, description="JSON file of API keys (see edge_node.auth).")
    api_key_pepper: SecretStr = Field(SecretStr(""), description="Secret the stored key digests are keyed with.")

    @field_validator("cache_url")
    @classmethod
    def _legal_cache_url(cls, value: str) -> str:
        if value and not is_url(value):
            raise ValueError("http(s)://host[:port]")
        return value

    @field_validator("spool_dir", mode="before")
    @classmethod
    def _no_spool(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("spool_dir")
    @classmethod
    def _legal_spool_dir(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        try:
            str(value).encode()
        except UnicodeEncodeError as exc:  # its URL would name another folder
            raise ValueError("a path in UTF-8") from exc
        if not value.is_absolute():
            raise ValueError("an absolute path, of a folder of this edge alone")
        return value

    @model_validator(mode="after")
    def _spool_apart(self) -> Self:
        """What is in the spool's folder and is no part of a job there is removed: it must be no part of the store."""
        parts = urlsplit(self.store_url)
        if self.spool_dir is None or parts.scheme != "file":
            return self
        spool, store = (Path(os.path.realpath(path)) for path in (self.spool_dir, unquote(parts.path)))
        if spool.is_relative_to(store) or store.is_relative_to(spool):
            limit = f"a folder that is neither in that of store_url ({store}) nor around it"
            raise refused("spool_dir", self.spool_dir, limit)
        return self

    @model_validator(mode="after")
    def _keys(self) -> Self:
        if self.auth != "required":
            return self
        if self.api_keys_file is None:
            raise refused("api_keys_file", "", "auth=required needs api_keys_file and api_key_pepper")
        if len(self.api_key_pepper.get_secret_value()) < MIN_PEPPER_CHARS:
            raise refused("api_key_pepper", "(secret)", f"{MIN_PEPPER_CHARS} characters or more, with auth=required")
        if self.tls_cert is None:
            raise refused("tls_cert", "", "auth=required needs tls_cert and tls_key: keys must not travel in the clear")
        return self

    @model_validator(mode="after")
    def _peers(self) -> Self:
        """With TLS here the schedulers surely speak it too; called in the clear they would never answer, and this edge
        would decide alone for ever."""
        if self.tls_cert is not None and self.clear_to_strangers and not self.insecure_peers:
            limit = "required with tls_cert, unless all scheduler_addresses are loopback or insecure_peers=true"
            raise refused("tls_client_ca", "", limit)
        return self

    @property
    def clear_to_strangers(self) -> bool:
        """Whether schedulers on other machines would be called without TLS."""
        hosts = [address.rpartition(":")[0] for address in self.schedulers()]
        return self.tls_client_ca is None and not (hosts and all(is_loopback(host) for host in hosts))

    @property
    def most_queued(self) -> int:
        """How many drafts do wait here at most: a scheduler may not have known how many there are already when it sent
        some, and what was accepted is made."""
        return self.max_waiting_drafts + ACCEPTED_BEYOND

    @property
    def most_lent(self) -> int:
        """How many drafts may wait here so that one of another edge is still taken."""
        return max(1, self.max_waiting_drafts // 2)

    @property
    def borrows(self) -> bool:
        """Whether other edges may draft for this one: with TLS here they speak it as well, and cannot be called without
        the CA of their certificates."""
        return self.tls_cert is None or self.tls_client_ca is not None
