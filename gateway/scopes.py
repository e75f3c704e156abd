"""What a limited key may do: every action, the scope it takes, and what a service account may without any. Pure.

    SCOPE_OF       action ▶ scope; an action that is not here is done by no limited key
    SELF_ACTIONS   what a service account may do to the agents it backs without any scope
    NAMING         what a key bound to one agent may do to its owner's other agents: name them, to send to them
    ADMIN_ACTIONS  what only an admin key may

Permissions in Mobius' spelling, with its prefix or without, are read as sets of our scopes.
"""

from collections.abc import Iterable
from typing import Final

from contracts.errors import Invalid
from contracts.records import Principal
from contracts.words import Scope

ADMIN_ACTIONS: Final = frozenset({"owner.assign", "key.mint_foreign", "key.mint_admin"})
NAMING: Final = frozenset({"agent.address", "agent.name"})

_ACTIONS: Final[dict[Scope, str]] = {
    Scope.MESSAGES_SEND: """
        agent.address agent.send_as message.send message.route message.answer message.follow message.cancel
        message.redrive message.discard execution.replay execution.verify redrive.start redrive.cancel
    """,
    Scope.MESSAGES_READ: """
        agent.name message.read inbox.read inbox.mark inbox.acknowledge sent.read thread.read
        dead_letter.read redrive.read
    """,
    Scope.AGENTS_READ: "project.read agent.read agent.list agent.echo session.read webhook.read grant.read",
    Scope.AGENTS_MANAGE: """
        agent.create agent.update agent.direct agent.activate agent.delete agent.secret webhook.update
        subscription.create subscription.delete grant.give grant.withdraw guard.reset
    """,
    Scope.SESSIONS_ATTACH: """
        session.attach session.register session.update session.beat session.detach session.disconnect
        host.beat host.echo monitor.connect
    """,
    Scope.EXECUTIONS_CLAIM: """
        execution.claim execution.lease execution.report job.claim job.beat job.complete worker.beat worker.forget
    """,
    Scope.EXECUTIONS_READ: "execution.read execution.list job.read worker.list",
    Scope.CUES_MANAGE: "cue.create cue.read cue.update cue.delete cue.fire",
    Scope.ACCOUNTS_MANAGE: "account.create account.read account.update account.delete",
    Scope.KEYS_MANAGE: "key.mint key.read key.revoke key.rotate",
    Scope.MOBS_MANAGE: "mob.create mob.read mob.update mob.delete mob.run",
    Scope.AUDIT_READ: "events.read subscription.read subscription.ack guard.read usage.read",
}
SCOPE_OF: Final = {action: scope for scope, actions in _ACTIONS.items() for action in actions.split()}

_SELF_ACTIONS: Final = """
    agent.read agent.list agent.update session.read session.attach session.register session.update session.beat
    session.detach session.disconnect host.beat host.echo monitor.connect execution.claim execution.lease
    execution.report execution.read execution.list job.claim job.beat job.complete job.read worker.beat
"""
SELF_ACTIONS: Final = frozenset(_SELF_ACTIONS.split())

_READ: Final = frozenset({Scope.AGENTS_READ, Scope.MESSAGES_READ, Scope.EXECUTIONS_READ, Scope.AUDIT_READ})
_WORK: Final = frozenset({Scope.SESSIONS_ATTACH, Scope.EXECUTIONS_CLAIM, Scope.EXECUTIONS_READ, Scope.MESSAGES_SEND})
PEER_PERMISSIONS: Final[dict[str, frozenset[Scope]]] = {
    "agent.read": frozenset({Scope.AGENTS_READ}),
    "agent.manage": frozenset({Scope.AGENTS_READ, Scope.AGENTS_MANAGE, Scope.SESSIONS_ATTACH}),
    "service_account.manage": frozenset({Scope.ACCOUNTS_MANAGE}),
    "permission.manage": frozenset({Scope.KEYS_MANAGE}),
    "job.claim": frozenset({Scope.EXECUTIONS_CLAIM, Scope.EXECUTIONS_READ}),
    "job.emit_event": frozenset({Scope.EXECUTIONS_CLAIM}),
    "project.view": _READ,
    "work.execute": _WORK,
    "access.manage": frozenset({Scope.ACCOUNTS_MANAGE, Scope.KEYS_MANAGE}),
}
_PEER_PREFIX: Final = "mobius."


def scopes_named(words: Iterable[str], *, field: str = "scopes") -> frozenset[Scope]:
    """The scopes that words of ours or of Mobius stand for. Raises `Invalid` (`unknown_scope`)."""
    return frozenset().union(*(_meant(word, field) for word in words))


def scope_may(principal: Principal, action: str) -> bool:
    """Whether the key's own limits allow `action`, whomever it is done to."""
    if principal.scopes is None:
        return principal.service_account_id is None
    return SCOPE_OF.get(action) in principal.scopes


def _meant(word: str, field: str) -> frozenset[Scope]:
    if word in _BY_NAME:
        return frozenset({_BY_NAME[word]})
    if (found := PEER_PERMISSIONS.get(word.removeprefix(_PEER_PREFIX))) is not None:
        return found
    raise Invalid("unknown_scope", f"A scope is one of: {', '.join(_BY_NAME)}.", field=field)


_BY_NAME: Final = {scope.value: scope for scope in Scope}
