"""The table of operations and the document made from it: nothing of the gRPC service is missing, nothing dangles."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter

from adaptivegen.roles import ROLES
from adaptivegen.rpc.pb import admin_pb2 as pb
from scheduler.api.openapi import DOCUMENT_PATH, STREAM_PATH, document
from scheduler.api.operations import OPERATIONS, ROOT, Operation

METHODS = {method.name: method for method in pb.DESCRIPTOR.services_by_name["AdminService"].methods}
EVERY = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.rpc)


def within(value: Any) -> Iterator[tuple[str, Any]]:
    """All keys and values of a document, however deep."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from within(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from within(inner)


def test_every_method_of_the_service_has_one_operation() -> None:
    assert sorted(operation.rpc for operation in OPERATIONS) == sorted(METHODS)


@EVERY
def test_an_operation_takes_what_its_method_takes(operation: Operation) -> None:
    fields = METHODS[operation.rpc].input_type.fields_by_name
    assert set(operation.asked.model_fields) == set(fields)
    assert set(operation.in_path) <= set(fields)


@EVERY
def test_an_operation_answers_what_its_method_answers(operation: Operation) -> None:
    schema = TypeAdapter(operation.answer).json_schema(mode="serialization")
    message = METHODS[operation.rpc].output_type
    assert set(schema["properties"]) == set(message.fields_by_name)
    for name, field in message.fields_by_name.items():  # and so do the rows in it
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            shown = schema["properties"][name]
            row = schema["$defs"][(shown.get("items") or shown)["$ref"].rpartition("/")[2]]
            assert set(row["properties"]) == set(field.message_type.fields_by_name), name


def test_what_changes_something_is_a_post_and_needs_more_than_looking() -> None:
    for operation in OPERATIONS:
        assert (operation.method == "POST") == (operation.role != "viewer")
        assert operation.role in ROLES
        looks = re.match("List|Get|Explain", operation.rpc)
        assert (operation.method == "GET") == bool(looks)
    assert len({(operation.method, operation.path) for operation in OPERATIONS}) == len(OPERATIONS)


def test_the_document_is_json_and_every_reference_in_it_leads_somewhere() -> None:
    made = json.loads(json.dumps(document()))
    assert made["openapi"] == "3.1.0"
    references = [value for key, value in within(made) if key == "$ref"]
    assert references
    for reference in references:
        found: Any = made
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    used = {reference.rpartition("/")[2] for reference in references if "/schemas/" in reference}
    assert used == set(made["components"]["schemas"])


def test_the_document_tells_of_every_operation() -> None:
    made = document()
    for operation in OPERATIONS:
        told = made["paths"][f"{ROOT}{operation.path}"][operation.method.lower()]
        assert (told["operationId"], told["x-role"]) == (operation.rpc, operation.role)
        assert told["summary"]
        assert set(told["responses"]) == {"200", "default"}
        shown = {(one["name"], one["in"], one["required"]) for one in told.get("parameters", ())}
        in_path = {(name, "path", True) for name in operation.in_path}
        in_query = {(name, "query", False) for name in operation.elsewhere if operation.method == "GET"}
        assert shown == in_path | in_query
        if operation.method == "POST":
            body = told["requestBody"]["content"]["application/json"]["schema"]
            assert set(body["properties"]) == set(operation.elsewhere)
            assert not body["additionalProperties"]
    assert made["paths"]["/v1/admin/pools/{pool}/scale"]["post"]["requestBody"]["content"]["application/json"][
        "schema"
    ]["required"] == ["workers"]
    names = [told["operationId"] for path in made["paths"].values() for told in path.values()]
    assert len(set(names)) == len(names) == len(OPERATIONS) + 2
    assert {STREAM_PATH, DOCUMENT_PATH} <= set(made["paths"])


def test_limits_are_in_the_document() -> None:
    parameters = document()["paths"]["/v1/admin/dead-letters"]["get"]["parameters"]
    assert [(one["schema"]["minimum"], one["schema"]["maximum"]) for one in parameters] == [(0, 200)]
