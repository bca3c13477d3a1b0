"""Rows of the admin service from the wire, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from adaptivegen.rpc.admin_rows import GateInfo, LineNodeInfo

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Row = TypeVar("Row", bound="DataclassInstance")
WITHIN: Mapping[str, type[Any]] = {"Gate": GateInfo, "LineNode": LineNodeInfo}  # messages in rows, by name


def read_row(kind: type[Row], message: object) -> Row:
    """A row from the wire: what is repeated is a tuple here, a map a dict, and what is absent None."""
    values = {item.name: _read(message, item.name) for item in fields(kind)}
    return kind(**{name: _plain(value) for name, value in values.items()})


def _read(message: Any, name: str) -> Any:
    field = message.DESCRIPTOR.fields_by_name[name]
    return getattr(message, name) if not field.has_presence or message.HasField(name) else None


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return dict(value)
    return tuple(_plain_item(item) for item in value)


def _plain_item(value: Any) -> Any:
    descriptor = getattr(value, "DESCRIPTOR", None)
    return value if descriptor is None else read_row(WITHIN[descriptor.name], value)
