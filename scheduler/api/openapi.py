"""The OpenAPI 3.1 document, made from the table of operations and the types it names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from adaptivegen.errors import STATUS, AdaptiveGenError
from scheduler.api.operations import OPERATIONS, ROOT, Operation
from scheduler.snapshot import Snapshot

API_VERSION = "1"
DOCUMENT_PATH, STREAM_PATH = f"{ROOT}/openapi.json", f"{ROOT}/stream"
_REF = "#/components/schemas/{model}"


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """What went wrong. code: stable; param: the field it is about; retryable: the same call may succeed later."""

    code: str
    message: str
    param: str | None
    retryable: bool


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """Every answer that is no success."""

    error: ErrorBody


def document() -> dict[str, Any]:
    """All operations with their parameters, answers and errors."""
    types: dict[str, Any] = {operation.rpc: operation.answer for operation in OPERATIONS}
    types |= {"snapshot": Snapshot, "error": ErrorAnswer}
    answers, shared = TypeAdapter.json_schemas(
        [(name, "serialization", TypeAdapter(answer)) for name, answer in types.items()], ref_template=_REF
    )
    schemas = dict(shared["$defs"])
    refs = {name: schema for (name, _), schema in answers.items()}
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        described = _described(operation, refs[operation.rpc])
        paths.setdefault(f"{ROOT}{operation.path}", {})[operation.method.lower()] = described
    paths[STREAM_PATH] = {"get": _stream(refs["snapshot"])}
    paths[DOCUMENT_PATH] = {"get": _plain("GetOpenApi", "This document.", {"application/json": {"schema": _OBJECT}})}
    return {
        "openapi": "3.1.0",
        "info": {"title": "AdaptiveGen admin API", "version": API_VERSION, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "security": [{"clientCertificate": []}, {}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {"Error": {"description": _ERRORS, "content": _json(refs["error"])}},
            "securitySchemes": {"clientCertificate": {"type": "mutualTLS", "description": _CERTIFICATE}},
        },
    }


_OBJECT = {"type": "object"}
_ABOUT = (
    "The admin service of a scheduler, as over gRPC. Times named `_s` are seconds, those named `_ns` wall nanoseconds "
    "since 1970; a limit of 0 means the default."
)
_CERTIFICATE = "Roles go by the names in the certificate; a scheduler on loopback without keys asks for none."
_ERRORS = "Refused or failed. Codes, with their status: " + ", ".join(
    f"{error.code} {status.http}" for error, status in STATUS.items() if error is not AdaptiveGenError
)


def _described(operation: Operation, answer: dict[str, Any]) -> dict[str, Any]:
    schema = operation.asked.model_json_schema()
    fields: dict[str, Any] = schema.get("properties", {})
    described = _plain(operation.rpc, operation.summary, _json(answer), role=operation.role)
    in_query = operation.elsewhere if operation.method == "GET" else ()
    parameters = [_parameter(name, fields[name], "path") for name in operation.in_path]
    parameters += [_parameter(name, fields[name], "query") for name in in_query]
    if parameters:
        described["parameters"] = parameters
    if operation.method == "POST":
        body = {
            "type": "object",
            "description": schema["description"],
            "properties": {name: fields[name] for name in operation.elsewhere},
            "required": [name for name in operation.elsewhere if name in schema.get("required", ())],
            "additionalProperties": False,
        }
        described["requestBody"] = {"required": True, "content": _json(body)}
    return described


def _plain(name: str, summary: str, content: dict[str, Any], *, role: str = "viewer") -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "description": f"Needs the role {role}.",
        "x-role": role,
        "responses": {
            "200": {"description": "Done.", "content": content},
            "default": {"$ref": "#/components/responses/Error"},
        },
    }


def _stream(snapshot: dict[str, Any]) -> dict[str, Any]:
    event = {"type": "string", "contentMediaType": "application/json", "contentSchema": snapshot}
    summary = "A snapshot at once and then every second, as server-sent events named `snapshot`; the data is its JSON."
    return _plain("StreamSnapshots", summary, {"text/event-stream": {"schema": event}})


def _parameter(name: str, schema: dict[str, Any], where: str) -> dict[str, Any]:
    shown = {key: value for key, value in schema.items() if key != "description"}
    told = {"description": schema["description"]} if "description" in schema else {}
    return {"name": name, "in": where, "required": where == "path", **told, "schema": shown}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
