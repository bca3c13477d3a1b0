"""Settings of an edge node, from `ADAPTIVEGEN_EDGE_*`."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from adaptivegen.settings import ServiceSettings, SigningMixin


class EdgeSettings(ServiceSettings, SigningMixin):
    """An edge drafts with one model and submits to one default cloud model."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_prefix="ADAPTIVEGEN_EDGE_")

    http_port: int = Field(0, ge=0, le=65535, description="Port of the HTTP API; 0 takes a free one.")
    grpc_port: int = Field(0, ge=0, le=65535, description="Port of the gRPC API; 0 takes a free one.")
    scheduler_addresses: str = Field(
        "", description="Comma-separated host:port of schedulers; empty: those that registered with the broker."
    )
    place_budget_s: float = Field(0.05, gt=0, le=5, description="Time for `Place`; then the edge decides alone.")
    cache_url: str = Field("", description="Base URL of the media cache; empty serves media from here.")
    draft_model: str = Field("pocket-draft", description="Model card of drafts.")
    cloud_model: str = Field("pocket-cloud", description="Model card of finals when a request names none.")
    pool: str = Field("default", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="Worker pool jobs go to.")
    threads: int = Field(2, ge=1, le=256, description="CPU threads of the draft model.")
    max_waiting_drafts: int = Field(16, ge=1, le=10_000, description="Drafts that may wait for the model.")
    ack_wait_s: float = Field(30.0, ge=2, le=600, description="Lease of a claimed job, as the workers have it.")
    max_upload_bytes: int = Field(32 * 1024 * 1024, gt=0, description="Largest request body.")
    media_url_ttl_s: float = Field(3600.0, gt=0, description="Validity of signed media URLs.")
    api_keys_file: Path | None = Field(None, description="JSON file of API keys (see edge_node.auth).")
    api_key_pepper: SecretStr = Field(SecretStr(""), description="Secret the stored key digests are keyed with.")

    @model_validator(mode="after")
    def _keys(self) -> Self:
        if self.auth == "required":
            if self.api_keys_file is None or len(self.api_key_pepper.get_secret_value()) < 16:
                raise ValueError("auth=required needs api_keys_file and an api_key_pepper of 16 characters or more")
            if self.tls_cert is None:
                raise ValueError("auth=required needs tls_cert and tls_key: keys must not travel in the clear")
        return self

    def schedulers(self) -> list[str]:
        """The scheduler addresses as a list."""
        return [address.strip() for address in self.scheduler_addresses.split(",") if address.strip()]
