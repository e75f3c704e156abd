"""Bodies and their refusals: each with a code and a place, and never with the value that was sent."""

from typing import Any

import pytest
from pydantic import ValidationError

from contracts.errors import Rejected
from contracts.words import Channel, FallbackMode, WorkStyle
from gateway.problems import refusal_of
from gateway.schemas import Body
from gateway.schemas_agents import AgentChange, Attach, HostBeat, NewAgent, SessionBeat
from gateway.schemas_executions import LeaseRequest, LiveClaim, OutcomeReport, Release
from gateway.schemas_messages import NewMessage

GOOD: dict[str, Any] = {"to": "a", "message": "x"}


def refusal(model: type[Body], value: dict[str, Any]) -> tuple[str, str | None]:
    """The code and the field of the refusal; the value sent must not show in it."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(value)
    error: Rejected = refusal_of(caught.value.errors())
    assert "s3cr3t" not in error.message
    assert "s3cr3t" not in str(dict(error.facts))
    return error.code, error.facts.get("field")


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"from": "s3cr3t"}, "server_field", "from"),
        ({"sender": 1}, "server_field", "sender"),
        ({"owner": "x"}, "server_field", "owner"),
        ({"hop": 0}, "server_field", "hop"),
        ({"accepted_at": "x"}, "server_field", "accepted_at"),
        ({"id": "msg_x"}, "server_field", "id"),
        ({"prio": 1}, "unknown_field", "prio"),
        ({"<s3cr3t>": 1}, "unknown_field", None),
        ({"message": ""}, "required", "message"),
        ({"message": " \n\t"}, "required", "message"),
        ({"message": 7}, "invalid_type", "message"),
        ({"message": None}, "invalid_type", "message"),
        ({"to": ["a"]}, "invalid_type", "to"),
        ({"to": {}}, "invalid_type", "to"),
        ({"subject": "a\nb"}, "control_character", "subject"),
        ({"subject": "a\x1b[31m"}, "control_character", "subject"),
        ({"subject": "x" * 256}, "too_long", "subject"),
        ({"delivery_mode": "LIVE"}, "invalid_enum", "delivery_mode"),
        ({"delivery_mode": "s3cr3t"}, "invalid_enum", "delivery_mode"),
        ({"delivery_mode": 1}, "invalid_enum", "delivery_mode"),
        ({"delivery_mode": True}, "invalid_enum", "delivery_mode"),
        ({"delivery_mode": None}, "invalid_enum", "delivery_mode"),
        ({"live_fallback_mode": "bg"}, "invalid_enum", "live_fallback_mode"),
        ({"live_fallback_mode": "none", "delivery_mode": "inbox"}, "field_not_applicable", None),
        ({"live_fallback_mode": "none", "delivery_mode": "bg"}, "field_not_applicable", None),
        ({"live_fallback_mode": "none", "delivery_mode": "webhook"}, "field_not_applicable", None),
        ({"ttl_s": 0}, "out_of_range", "ttl_s"),
        ({"ttl_s": -1}, "out_of_range", "ttl_s"),
        ({"ttl_s": 10**12}, "out_of_range", "ttl_s"),
        ({"ttl_s": "30"}, "invalid_type", "ttl_s"),
        ({"ttl_s": True}, "invalid_type", "ttl_s"),
        ({"ttl_s": 1.0}, "invalid_type", "ttl_s"),
        ({"claim_window_s": 601}, "out_of_range", "claim_window_s"),
        ({"metadata": []}, "invalid_type", "metadata"),
        ({"metadata": {"nats.x": 1}}, "reserved_key", "metadata"),
        ({"metadata": {"_x": 1}}, "reserved_key", "metadata"),
        ({"metadata": {"X-Router-Hop": 1}}, "reserved_key", "metadata"),
        ({"metadata": {"a": "x" * 10_240}}, "metadata_too_large", "metadata"),
        ({"body": "as well"}, "unknown_field", "body"),
        ({"priority": 0}, "out_of_range", "priority"),
        ({"priority": 6}, "out_of_range", "priority"),
        ({"priority": "5"}, "invalid_type", "priority"),
        ({"correlation_id": "x" * 256}, "too_long", "correlation_id"),
        ({"correlation_id": "a\nb"}, "control_character", "correlation_id"),
        ({"expects_reply": "yes"}, "invalid_type", "expects_reply"),
        ({"reply_to": 7}, "invalid_type", "reply_to"),
        ({"send_at": "2026-01-31T09:00:00"}, "invalid_format", "send_at"),
        ({"send_at": "2026-02-30T09:00:00Z"}, "invalid_format", "send_at"),
        ({"send_at": "0001-01-01T00:00:00+23:59"}, "invalid_format", "send_at"),
        ({"send_at": 1_700_000_000}, "invalid_type", "send_at"),
        ({"verification": "s3cr3t"}, "invalid_enum", "verification"),
        ({"verification": {"mode": "s3cr3t"}}, "invalid_enum", "verification"),
        ({"verification": {"mode": "none", "more": 1}}, "invalid_enum", "verification"),
        ({"thread_id": "msg_x"}, "server_field", "thread_id"),
        ({"chain": []}, "server_field", "chain"),
    ],
)
def test_a_message_that_is_not_acceptable_is_refused_by_name(change: Any, code: str, field: str | None) -> None:
    assert refusal(NewMessage, {**GOOD, **change}) == (code, field)


def test_the_five_modes_are_listed_in_the_refusal() -> None:
    with pytest.raises(ValidationError) as caught:
        NewMessage.model_validate({**GOOD, "delivery_mode": "push"})

    message = refusal_of(caught.value.errors()).message
    assert all(mode in message for mode in ("live", "bg", "inbox", "webhook", "auto"))


def test_body_is_read_as_message_and_missing_is_named() -> None:
    assert NewMessage.model_validate({"to": "a", "body": "x"}).message == "x"
    assert refusal(NewMessage, {"to": "a"}) == ("required", "message")


def test_the_alias_of_the_fallback_is_read_as_the_word() -> None:
    value = {**GOOD, "delivery_mode": "live", "live_fallback_mode": "fallback_to_background"}
    wish = NewMessage.model_validate(value).wish()

    assert (wish.channel, wish.fallback) == (Channel.LIVE, FallbackMode.BACKGROUND)
    assert NewMessage.model_validate(GOOD).wish().channel is None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"slug": "agent_x"}, "invalid_format"),
        ({"slug": "-a"}, "invalid_format"),
        ({"slug": "a\n"}, "invalid_format"),
        ({"slug": "ａ"}, "invalid_format"),
        ({"slug": "a" * 64}, "too_long"),
        ({"delivery_capabilities": []}, "too_short"),
        ({"delivery_capabilities": ["live", "live"]}, "duplicate_item"),
        ({"delivery_capabilities": ["push"]}, "invalid_enum"),
        ({"preferred_contact": "sync"}, "invalid_enum"),
        ({"profile": {"work_style": "live"}}, "invalid_enum"),
        ({"profile": {"preferred_contact": "bg"}}, "invalid_enum"),
        ({"heartbeat_age_sec": 9}, "out_of_range"),
        ({"heartbeat_age_sec": 3_601}, "out_of_range"),
        ({"heartbeat_age_sec": "60"}, "invalid_type"),
        ({"attestation": "nonce"}, "invalid_enum"),
        ({"status": "away"}, "invalid_enum"),
        ({"webhook_secret": "x"}, "server_field"),
        ({"id": "agent_000000000000"}, "server_field"),
    ],
)
def test_an_agent_that_is_not_acceptable_is_refused(change: Any, code: str) -> None:
    assert refusal(NewAgent, {"slug": "a", **change})[0] == code


def test_the_wrong_axis_names_the_right_field() -> None:
    with pytest.raises(ValidationError) as caught:
        NewAgent.model_validate({"slug": "a", "preferred_contact": "sync"})

    assert "work_style" in refusal_of(caught.value.errors()).message


def test_the_profile_reads_preferred_contact_as_work_style() -> None:
    agent = NewAgent.model_validate({"slug": "a", "profile": {"preferred_contact": "async"}})

    assert agent.profile.profile().work_style is WorkStyle.ASYNC


def test_a_change_knows_what_was_named() -> None:
    assert AgentChange.model_validate({"webhook_url": None}).model_fields_set == {"webhook_url"}
    assert refusal(AgentChange, {"status": None})[0] == "invalid_enum"
    assert refusal(AgentChange, {"slug": None})[0] == "invalid_type"


@pytest.mark.parametrize("token", ["short", "x" * 25, "x" * 81, "x" * 26 + "!", "x" * 30 + "\n"])
def test_a_session_token_has_a_shape(token: str) -> None:
    assert refusal(Attach, {"label": "main", "session_token": token})[0] == "invalid_format"


@pytest.mark.parametrize("label", ["", "a/b", "a?b", " a", "a ", "a\nb", "x" * 65])
def test_a_label_fits_into_a_path(label: str) -> None:
    assert refusal(Attach, {"label": label})[1] == "label"
    assert Attach.model_validate({"label": "Claude Code: main"}).label == "Claude Code: main"


def test_a_beat_is_never_from_the_future() -> None:
    assert refusal(SessionBeat, {"age_s": -1}) == ("out_of_range", "age_s")
    assert refusal(HostBeat, {"host_id": "h", "agents": [], "age_s": "1"})[0] == "invalid_type"
    assert SessionBeat.model_validate({"age_s": 3}).age_s == 3


def test_the_bodies_of_the_workers_are_bounded() -> None:
    assert refusal(LeaseRequest, {"worker_id": "w", "lease_s": 9})[0] == "out_of_range"
    assert refusal(Release, {"lease": 1, "reason": "Not A Word"})[0] == "invalid_format"
    assert refusal(Release, {"lease": True, "reason": "x"})[0] == "invalid_type"
    assert refusal(OutcomeReport, {"success": "true"})[0] == "invalid_type"
    assert refusal(OutcomeReport, {"success": True, "executed_via": "webhook"})[0] == "invalid_enum"
    assert LiveClaim.model_validate({}).session_token == ""
