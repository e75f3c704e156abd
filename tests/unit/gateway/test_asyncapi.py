"""The AsyncAPI document holds together: every reference leads somewhere, every channel is a family of subjects."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from contracts.events import Event
from contracts.records import Echo
from contracts.subject_patterns import PATTERNS
from gateway.asyncapi import asyncapi_document
from infra.codec import encode_echo, encode_event
from tests.builders import accepted, claimed, offered
from tests.json_documents import follow, payload_schema

DOCUMENT = asyncapi_document(version="1.2.3")


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for each in node.values():
            yield from references(each)
    elif isinstance(node, list):
        for each in node:
            yield from references(each)


def test_it_is_asyncapi_3_with_a_title_and_a_version() -> None:
    assert DOCUMENT["asyncapi"].startswith("3.0")
    assert DOCUMENT["info"]["title"]
    assert DOCUMENT["info"]["version"] == "1.2.3"


def test_every_reference_leads_somewhere() -> None:
    found = set(references(DOCUMENT))
    assert found
    for reference in found:
        assert isinstance(follow(DOCUMENT, reference), dict), reference


def test_its_channels_are_the_families_of_subjects_and_no_others() -> None:
    addresses = {name: channel["address"] for name, channel in DOCUMENT["channels"].items()}
    assert addresses == {name: pattern.address for name, pattern in PATTERNS.items()}


def test_every_channel_names_the_tokens_of_its_address_and_has_messages() -> None:
    for name, channel in DOCUMENT["channels"].items():
        assert set(channel.get("parameters", {})) == set(PATTERNS[name].tokens), name
        assert channel["messages"], name


def test_every_operation_sends_or_receives_messages_of_its_channel() -> None:
    channels = set()
    for operation in DOCUMENT["operations"].values():
        assert operation["action"] in ("send", "receive")
        channel = operation["channel"]["$ref"]
        channels.add(channel)
        assert all(each["$ref"].startswith(f"{channel}/messages/") for each in operation["messages"])
    assert channels == {f"#/channels/{name}" for name in DOCUMENT["channels"]}


def test_every_schema_is_one() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema_rs.Draft7Validator({**schema, "components": DOCUMENT["components"]})


@pytest.mark.parametrize("event", [accepted(), offered(), claimed()])
def test_what_is_written_to_the_ledger_is_as_described(event: Event) -> None:
    jsonschema_rs.Draft7Validator(payload_schema(DOCUMENT, "ledger")).validate(json.loads(encode_event(event)))


def test_an_echo_is_as_described() -> None:
    echo = Echo(agent_id="agent_1", echo_id="echo_1")
    jsonschema_rs.Draft7Validator(payload_schema(DOCUMENT, "echo")).validate(json.loads(encode_echo(echo)))
