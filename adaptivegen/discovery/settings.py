"""Which schedulers a node asks, as its settings say."""

from __future__ import annotations

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings

from adaptivegen.discovery.base import is_address


class SchedulersMixin(BaseSettings):
    """Addresses of schedulers, shared by edges and workers."""

    scheduler_addresses: str = Field(
        "", description="Comma-separated host:port of schedulers; empty: those that are discovered."
    )

    @field_validator("scheduler_addresses")
    @classmethod
    def _legal_addresses(cls, value: str) -> str:
        if not all(is_address(part.strip()) for part in value.split(",") if part.strip()):
            raise ValueError("host:port, comma-separated")
        return value

    def schedulers(self) -> list[str]:
        """The addresses as a list."""
        return [address.strip() for address in self.scheduler_addresses.split(",") if address.strip()]
