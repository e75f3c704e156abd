"""Who may do what to whom: the one authorizer, the actions' scopes, and the routes' rules."""

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from contracts.errors import Forbidden, Invalid
from contracts.records import Agent, Principal
from contracts.words import Scope
from gateway.auth import authorize
from gateway.key_limits import SELF_SCOPES, KeyLimits, refuse_more
from gateway.permissions import ITSELF, RULES, agent, owner
from gateway.scopes import ADMIN_ACTIONS, NAMING, PEER_PERMISSIONS, SCOPE_OF, SELF_ACTIONS, scopes_named

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
BUILDER = Agent(
    id="agent_000000000001", owner="max", slug="builder", created_at=NOW, updated_at=NOW, service_account_id="sa_1"
)
TESTER = replace(BUILDER, id="agent_000000000002", slug="tester", service_account_id=None)
FOREIGN = replace(BUILDER, id="agent_000000000003", owner="eve")

WHOLE = Principal(owner="max", key_id="whole")
SENDER = Principal(owner="max", key_id="sender", scopes=frozenset({Scope.MESSAGES_SEND}))
EVERY_SCOPE = Principal(owner="max", key_id="every", scopes=frozenset(Scope))
NOTHING = Principal(owner="max", key_id="nothing", scopes=frozenset())
BOUND = Principal(owner="max", key_id="bound", agent_id=BUILDER.id)
BOUND_READER = replace(BOUND, scopes=frozenset({Scope.AGENTS_READ}))
ACCOUNT = Principal(owner="max", key_id="account", scopes=frozenset(), service_account_id="sa_1")
ADMIN = Principal(owner="local", key_id="admin", admin=True)


@pytest.mark.parametrize("action", [*sorted(SCOPE_OF), "owner.assign", "no.such_action"])
def test_an_admin_may_do_everything_and_a_limited_key_nothing_that_no_scope_allows(action: str) -> None:
    assert authorize(ADMIN, action, "max", BUILDER)
    assert not authorize(NOTHING, action, "max", BUILDER)
    assert authorize(WHOLE, action, "max", BUILDER) == (action not in ADMIN_ACTIONS)
    assert not authorize(WHOLE, action, "eve", FOREIGN)
    assert not authorize(replace(NOTHING, scopes=frozenset(Scope)), "no.such_action", "max", BUILDER)


def test_a_scope_allows_its_actions_on_all_of_its_owner_and_no_other_action() -> None:
    allowed = {action for action in SCOPE_OF if authorize(SENDER, action, "max", TESTER)}

    assert allowed == {action for action, scope in SCOPE_OF.items() if scope is Scope.MESSAGES_SEND}
    assert not authorize(SENDER, "message.cancel", "eve", FOREIGN)


def test_a_bound_key_acts_for_its_agent_alone_and_may_name_the_others() -> None:
    for action in SCOPE_OF:
        assert authorize(BOUND, action, "max", BUILDER)
        assert authorize(BOUND, action, "max", TESTER) == (action in NAMING)
        assert authorize(BOUND, action, "max") == (action in NAMING)
        assert not authorize(BOUND, action, "eve", FOREIGN)
    assert authorize(BOUND_READER, "agent.read", "max", BUILDER)
    assert not authorize(BOUND_READER, "agent.update", "max", BUILDER)


def test_a_service_account_serves_the_agents_it_backs_and_scopes_add_to_that() -> None:
    with_scope = replace(ACCOUNT, scopes=frozenset({Scope.AGENTS_MANAGE}))
    for action in SCOPE_OF:
        assert authorize(ACCOUNT, action, "max", BUILDER) == (action in SELF_ACTIONS)
        assert not authorize(ACCOUNT, action, "max", TESTER)
        assert not authorize(ACCOUNT, action, "max")
        assert not authorize(ACCOUNT, action, "eve", FOREIGN)
    assert authorize(with_scope, "agent.update", "max", TESTER)
    assert not authorize(replace(ACCOUNT, scopes=None), "agent.update", "max", TESTER)


def test_a_service_account_neither_wakes_nor_deletes_its_agents() -> None:
    assert not {"agent.activate", "agent.delete", "agent.secret", "message.send"} & SELF_ACTIONS


def test_words_of_mobius_are_read_with_their_prefix_and_without() -> None:
    for word, scopes in PEER_PERMISSIONS.items():
        assert scopes_named([word]) == scopes_named([f"mobius.{word}"]) == scopes
    assert scopes_named(["messages:send", "agent.read"]) == {Scope.MESSAGES_SEND, Scope.AGENTS_READ}
    assert scopes_named([]) == frozenset()


@pytest.mark.parametrize("word", ["", "messages", "mobius.messages:send", "mobius.mobius.agent.read", "*"])
def test_a_word_that_is_no_scope_is_refused(word: str) -> None:
    with pytest.raises(Invalid) as refused:
        scopes_named([word])
    assert refused.value.code == "unknown_scope"


@pytest.mark.parametrize(
    ("principal", "code"),
    [(NOTHING, "insufficient_scope"), (ACCOUNT, "insufficient_scope"), (BOUND, "key_is_confined"), (WHOLE, None)],
)
def test_what_concerns_the_owner_is_for_whole_keys_with_the_scope(principal: Principal, code: str | None) -> None:
    assert _refusal(owner("key.read").admit, principal) == code


@pytest.mark.parametrize(
    ("principal", "code"),
    [(NOTHING, "insufficient_scope"), (ACCOUNT, None), (BOUND, None), (SENDER, "insufficient_scope")],
)
def test_what_concerns_an_agent_is_left_to_the_authorizer_where_the_key_may_try(
    principal: Principal, code: str | None
) -> None:
    assert _refusal(agent("agent.update").admit, principal) == code


def test_every_key_may_ask_about_itself() -> None:
    for principal in (NOTHING, ACCOUNT, BOUND, WHOLE, ADMIN):
        ITSELF.admit(principal)


@pytest.mark.parametrize(
    ("maker", "limits", "missing"),
    [
        (WHOLE, KeyLimits(), None),
        (ADMIN, KeyLimits(), None),
        (SENDER, KeyLimits(scopes=frozenset({Scope.MESSAGES_SEND})), None),
        (SENDER, KeyLimits(scopes=frozenset()), None),
        (SENDER, KeyLimits(scopes=frozenset({Scope.MESSAGES_SEND, Scope.KEYS_MANAGE})), {Scope.KEYS_MANAGE}),
        (SENDER, KeyLimits(), set(Scope) - {Scope.MESSAGES_SEND}),
        (EVERY_SCOPE, KeyLimits(scopes=frozenset(Scope)), None),
        (EVERY_SCOPE, KeyLimits(), set()),
        (EVERY_SCOPE, KeyLimits(agent_id=BUILDER.id), set()),
        (SENDER, KeyLimits(agent_id=BUILDER.id), set(Scope) - {Scope.MESSAGES_SEND}),
        (SENDER, KeyLimits(scopes=frozenset(), service_account_id="sa_1"), set(SELF_SCOPES)),
        (ACCOUNT, KeyLimits(scopes=frozenset(), service_account_id="sa_1"), None),
        (ACCOUNT, KeyLimits(scopes=frozenset(), service_account_id="sa_2"), set(SELF_SCOPES)),
    ],
)
def test_nobody_grants_what_he_lacks(maker: Principal, limits: KeyLimits, missing: set[Scope] | None) -> None:
    if missing is None:
        refuse_more(maker, limits)
        return
    with pytest.raises(Forbidden) as refused:
        refuse_more(maker, limits)
    assert refused.value.code == "scope_not_held"
    assert set(refused.value.facts["scopes"]) == missing


def test_every_action_that_is_asked_about_has_a_scope_or_is_an_admins() -> None:
    """An action missing from the table is refused to limited keys only, which no other test would notice."""
    known = set(SCOPE_OF) | ADMIN_ACTIONS
    asked = set(_actions_in_source())

    assert len(asked) > 40
    assert asked <= known
    assert {rule.action for rule in RULES.values() if rule.action} <= known
    assert known >= SELF_ACTIONS | NAMING


ACTION = re.compile(r"[a-z_]+\.[a-z_]+\Z")
ASKED_WITH = {"authorize", "require", "may", "confines", "find_message", "find_execution", "chosen_by", "_change"}
ASKED_WITH |= {"_change_message", "_change_execution", "_find", "_found", "_current", "insufficient_scope"}


def _actions_in_source() -> Iterator[str]:
    for folder in ("gateway", "router"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    yield from _actions_of(node)


def _actions_of(call: ast.Call) -> Iterator[str]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    values = [each.value for each in call.keywords if each.arg == "action"]
    values += call.args if name in ASKED_WITH else []
    for value in values:
        if isinstance(value, ast.Constant) and isinstance(value.value, str) and ACTION.match(value.value):
            yield value.value


def _refusal(admit: object, principal: Principal) -> str | None:
    assert callable(admit)
    try:
        admit(principal)
    except Forbidden as refusal:
        return refusal.code
    return None
