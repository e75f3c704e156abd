"""Log lines: one JSON object each, and never a secret in it."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from gateway.directory import fresh_key_text
from infra.clock import SystemIds
from infra.logs import HIDDEN, configure_logs


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Where the lines go; the logging of the other tests is put back afterwards."""
    handlers, level = logging.root.handlers[:], logging.root.level
    stream = io.StringIO()
    configure_logs("info", stream)
    yield stream
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def read(lines: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]


def test_a_line_is_an_object_with_its_event_and_instant(lines: io.StringIO) -> None:
    structlog.get_logger().info("accepted", message_id="msg_x", text="a\nb\x1b[31m")

    [line] = read(lines)
    assert (line["event"], line["level"], line["message_id"]) == ("accepted", "info", "msg_x")
    assert line["timestamp"].endswith("Z")
    assert "\x1b" not in lines.getvalue()


def test_what_is_below_the_level_is_not_written(lines: io.StringIO) -> None:
    structlog.get_logger().debug("request")

    assert lines.getvalue() == ""


def test_secrets_are_hidden_by_name_type_and_shape(lines: io.StringIO) -> None:
    key = fresh_key_text(SystemIds())
    structlog.get_logger().info(
        "seen",
        session_token="s3cr3t",
        headers={"Authorization": "s3cr3t", "accept": "json"},
        settings=SecretStr("s3cr3t"),
        raw=b"s3cr3t",
        url="nats://core:s3cr3t@host:4222",
        text=[f"Bearer {key}"],
        key_id="abc",
    )

    [line] = read(lines)
    assert "s3cr3t" not in lines.getvalue()
    assert key not in lines.getvalue()
    assert line["headers"] == {"Authorization": HIDDEN, "accept": "json"}
    assert line["url"] == f"nats://core:{HIDDEN}@host:4222"
    assert line["key_id"] == "abc"


@pytest.mark.parametrize(
    "secret",
    [
        "whsec_" + "A" * 32,
        "whsk_" + "A" * 32,
        "SUAIBDPBAUTWCWBKIO6XHQNINK5FWJW4OHLXC3HQ2KFE4PEJUA44CNHTC4",
        "SAAIBDPBAUTWCWBKIO6XHQNINK5FWJW4OHLXC3HQ2KFE4PEJUA44CNHTC4",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJtYXgifQ.",
        "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtYXgifQ.c2lnbmF0dXJl-_x",
    ],
)
def test_what_has_a_secret_s_shape_is_hidden_wherever_it_stands(lines: io.StringIO, secret: str) -> None:
    structlog.get_logger().info("seen", text=f"before {secret}, after")
    structlog.get_logger().error("failed", exc_info=RuntimeError(f"refused {secret}"))

    assert secret not in lines.getvalue()
    assert read(lines)[0]["text"] == f"before {HIDDEN}, after"


def test_an_error_brings_its_trace_and_libraries_bring_their_warnings(lines: io.StringIO) -> None:
    structlog.get_logger().error("unexpected_error", exc_info=RuntimeError("boom"))
    logging.getLogger("library").warning("careful: %s", 1)
    logging.getLogger("library").info("chatter")

    error, warning = read(lines)
    assert "RuntimeError: boom" in error["exception"]
    assert (warning["event"], warning["library"]) == ("careful: 1", "library")
