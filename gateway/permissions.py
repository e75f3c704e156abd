"""What each route asks of a key before anything is looked up: one line per route, and no route without one.

    ("GET", "/v1/things/{ref}"): agent("thing.read"),

The line names the action, whose scope is in `gateway/scopes.py`, and how far a key has to reach:

    agent(action)   every object is checked by the authorizer, with its agent: a key bound to one agent, and a service
                    account for its own agents, may try, and finds what it may not touch absent
    owner(action)   it concerns the owner as a whole: not for a key that is bound to one agent
    ITSELF          for every key, whatever its limits: it concerns the key and nothing else

A key without the scope gets 403 `insufficient_scope`, one that is bound to an agent 403 `key_is_confined` where the
reach is the owner. A route of `StrictRoute` that is not in `RULES` cannot be made.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from contracts.errors import Forbidden
from contracts.records import Principal
from contracts.words import Scope
from gateway.scopes import SCOPE_OF, SELF_ACTIONS, scope_may


@dataclass(frozen=True, slots=True)
class Rule:
    """What a route asks of a key. Without an action it asks nothing but that the key counts."""

    action: str | None
    is_owners: bool = False

    @property
    def scope(self) -> Scope | None:
        return None if self.action is None else SCOPE_OF[self.action]

    def admit(self, principal: Principal) -> None:
        """Raise `Forbidden` (`insufficient_scope`, `key_is_confined`) for a key that may not even try."""
        if principal.scopes is None and not principal.is_confined:
            return
        if principal.admin or self.action is None:
            return
        if not scope_may(principal, self.action) and not self._serves_itself(principal):
            raise insufficient_scope(self.action)
        if self.is_owners and principal.agent_id is not None:
            raise key_is_confined()

    def _serves_itself(self, principal: Principal) -> bool:
        is_account = principal.service_account_id is not None
        return is_account and not self.is_owners and self.action in SELF_ACTIONS


def agent(action: str) -> Rule:
    assert action in SCOPE_OF, action
    return Rule(action)


def owner(action: str) -> Rule:
    assert action in SCOPE_OF, action
    return Rule(action, is_owners=True)


ITSELF: Final = Rule(None)


def insufficient_scope(action: str) -> Forbidden:
    scope = SCOPE_OF[action].value
    return Forbidden("insufficient_scope", f"This takes a key with the scope {scope}.", scope=scope)


def key_is_confined() -> Forbidden:
    return Forbidden("key_is_confined", "This concerns the owner as a whole, and the key acts for some agents only.")


def rule_of(methods: Collection[str], path: str) -> Rule:
    """The one rule of a route. Raises `LookupError` for a route that nobody has thought about."""
    found = [RULES[method, path] for method in methods if (method, path) in RULES]
    if len(found) != 1 or len(methods) != 1:
        raise LookupError(f"gateway/permissions.py has no rule for {sorted(methods)} {path}")
    return found[0]


_AGENT: Final = "/v1/agents/{ref}"
_SESSIONS: Final = "/v1/agents/{ref}/live-sessions"
_SUBSCRIPTIONS: Final = "/v1/agents/{ref}/subscriptions"
_PROJECT: Final = "/v1/projects/{project}"
_ACCOUNTS: Final = _PROJECT + "/service-accounts"
_WORKERS: Final = tuple(f"/v1/projects/{{project}}/agents/{{agent_id}}/{word}" for word in ("sessions", "presence"))
_WORKER: Final = (
    "/v1/projects/{project}/agents/sessions/{session_id}",
    *(list_of + "/{session_id}" for list_of in _WORKERS),
)
_MESSAGE: Final = "/v1/messages/{message_id}"
_EXECUTION: Final = "/v1/executions/{execution_id}"

RULES: Final[Mapping[tuple[str, str], Rule]] = {
    # messages
    ("POST", "/v1/messages"): agent("message.send"),
    ("POST", "/v1/route"): agent("message.route"),
    ("GET", _MESSAGE): agent("message.read"),
    ("GET", _MESSAGE + "/receipts"): agent("message.read"),
    ("POST", _MESSAGE + "/cancel"): agent("message.cancel"),
    ("POST", _MESSAGE + "/read"): agent("inbox.mark"),
    ("POST", _MESSAGE + "/ack"): agent("inbox.acknowledge"),
    ("POST", _MESSAGE + "/redrive"): agent("message.redrive"),
    ("POST", _MESSAGE + "/discard"): agent("message.discard"),
    ("GET", "/v1/threads/{thread_id}"): owner("thread.read"),
    # dead letters
    ("GET", "/v1/dead-letters"): owner("dead_letter.read"),
    ("POST", "/v1/dead-letters/redrive"): owner("redrive.start"),
    ("POST", "/v1/dead-letters/discard"): owner("message.discard"),
    ("GET", "/v1/redrives"): owner("redrive.read"),
    ("GET", "/v1/redrives/{redrive_id}"): owner("redrive.read"),
    ("POST", "/v1/redrives/{redrive_id}/cancel"): owner("redrive.cancel"),
    # mailboxes
    ("GET", _AGENT + "/inbox"): agent("inbox.read"),
    ("GET", _AGENT + "/inbox/stream"): agent("inbox.read"),
    ("GET", _AGENT + "/sent"): agent("sent.read"),
    # events
    ("GET", "/v1/events"): agent("events.read"),
    ("GET", "/v1/events/stream"): agent("events.read"),
    ("GET", _AGENT + "/events"): agent("events.read"),
    ("POST", _SUBSCRIPTIONS): agent("subscription.create"),
    ("GET", _SUBSCRIPTIONS): agent("subscription.read"),
    ("DELETE", _SUBSCRIPTIONS + "/{subscription_id}"): agent("subscription.delete"),
    ("GET", _SUBSCRIPTIONS + "/{subscription_id}/attempts"): agent("subscription.read"),
    ("PATCH", _SUBSCRIPTIONS + "/{subscription_id}/ack"): agent("subscription.ack"),
    # cues: they send in their owner's name
    ("POST", "/v1/cues"): owner("cue.create"),
    ("GET", "/v1/cues"): owner("cue.read"),
    ("POST", "/v1/cues/bulk-delete"): owner("cue.delete"),
    ("GET", "/v1/cues/{cue_id}"): owner("cue.read"),
    ("PATCH", "/v1/cues/{cue_id}"): owner("cue.update"),
    ("DELETE", "/v1/cues/{cue_id}"): owner("cue.delete"),
    ("POST", "/v1/cues/{cue_id}/pause"): owner("cue.update"),
    ("POST", "/v1/cues/{cue_id}/resume"): owner("cue.update"),
    ("POST", "/v1/cues/{cue_id}/fire"): owner("cue.fire"),
    # executions
    ("GET", "/v1/executions"): agent("execution.list"),
    ("GET", "/v1/executions/claimable"): agent("execution.claim"),
    ("POST", "/v1/executions/claim"): agent("execution.lease"),
    ("GET", _EXECUTION): agent("execution.read"),
    ("POST", _EXECUTION + "/live-claim"): agent("execution.claim"),
    ("POST", _EXECUTION + "/claim"): agent("execution.lease"),
    ("POST", _EXECUTION + "/heartbeat"): agent("execution.lease"),
    ("POST", _EXECUTION + "/release"): agent("execution.lease"),
    ("POST", _EXECUTION + "/in-context"): agent("execution.report"),
    ("POST", _EXECUTION + "/outcome"): agent("execution.report"),
    ("PATCH", _EXECUTION + "/evidence"): agent("execution.report"),
    ("POST", _EXECUTION + "/verify"): agent("execution.verify"),
    ("POST", _EXECUTION + "/verification-pending"): agent("execution.verify"),
    ("POST", _EXECUTION + "/replay"): agent("execution.replay"),
    ("GET", _EXECUTION + "/attempts"): agent("execution.read"),
    ("GET", _EXECUTION + "/webhook"): agent("execution.read"),
    # agents and their sessions
    ("POST", "/v1/agents"): owner("agent.create"),
    ("GET", "/v1/agents"): agent("agent.list"),
    ("GET", "/v1/agents/roster"): agent("agent.list"),
    ("GET", _AGENT): agent("agent.read"),
    ("GET", _AGENT + "/presence"): agent("agent.read"),
    ("PATCH", _AGENT): agent("agent.update"),
    ("DELETE", _AGENT): agent("agent.delete"),
    ("POST", _SESSIONS): agent("session.attach"),
    ("GET", _SESSIONS): agent("session.read"),
    ("PATCH", _SESSIONS + "/{label}"): agent("session.update"),
    ("POST", _SESSIONS + "/{label}/heartbeat"): agent("session.beat"),
    ("DELETE", _SESSIONS + "/{label}"): agent("session.detach"),
    ("POST", _AGENT + "/echo"): agent("agent.echo"),
    ("POST", "/v1/sessions/heartbeat"): agent("session.beat"),
    **{("POST", list_of): agent("session.register") for list_of in _WORKERS},
    **{("GET", list_of): agent("session.read") for list_of in _WORKERS},
    **{("GET", one): agent("session.read") for one in _WORKER},
    **{("POST", one + "/heartbeat"): agent("session.beat") for one in _WORKER},
    **{("POST", one + "/disconnect"): agent("session.disconnect") for one in _WORKER},
    # whom these name and the caller may not act for is left out
    ("POST", "/v1/hosts/heartbeat"): agent("host.beat"),
    ("POST", "/v1/hosts/echo"): agent("host.echo"),
    # all agents named, or nothing; what is withdrawn may have been minted with other keys of the owner
    ("POST", "/v1/monitors/credentials"): agent("monitor.connect"),
    ("DELETE", "/v1/monitors/{monitor_id}/credentials"): owner("monitor.connect"),
    # an agent's webhook
    ("GET", _AGENT + "/webhook-secret"): agent("agent.secret"),
    ("POST", _AGENT + "/webhook-secret/regenerate"): agent("webhook.update"),
    ("GET", _AGENT + "/webhook"): agent("webhook.read"),
    ("PATCH", _AGENT + "/webhook"): agent("webhook.update"),
    ("POST", _AGENT + "/webhook/rotate"): agent("webhook.update"),
    ("POST", _AGENT + "/webhook/enable"): agent("webhook.update"),
    ("POST", _AGENT + "/webhook/test"): agent("webhook.update"),
    # projects: agents and the accounts behind them
    ("POST", _PROJECT + "/agents"): owner("agent.create"),
    ("GET", _PROJECT + "/agents"): agent("agent.list"),
    ("GET", _PROJECT + "/agents/{agent_id}"): agent("agent.read"),
    ("PATCH", _PROJECT + "/agents/{agent_id}"): agent("agent.update"),
    ("DELETE", _PROJECT + "/agents/{agent_id}"): agent("agent.delete"),
    ("POST", _ACCOUNTS): owner("account.create"),
    ("GET", _ACCOUNTS): owner("account.read"),
    ("GET", _ACCOUNTS + "/{account_id}"): owner("account.read"),
    ("PATCH", _ACCOUNTS + "/{account_id}"): owner("account.update"),
    ("DELETE", _ACCOUNTS + "/{account_id}"): owner("account.delete"),
    ("POST", _PROJECT + "/jobs/claim"): agent("job.claim"),
    ("POST", _PROJECT + "/jobs/{job_id}/heartbeat"): agent("job.beat"),
    ("POST", _PROJECT + "/jobs/{job_id}/complete"): agent("job.complete"),
    ("POST", _PROJECT + "/jobs/{job_id}/events"): agent("job.complete"),
    ("GET", _PROJECT + "/workers"): owner("worker.list"),
    # workers: what they say of themselves touches nobody's agent
    ("POST", "/v1/worker/heartbeat"): agent("worker.beat"),
    ("GET", "/v1/workers"): owner("worker.list"),
    ("DELETE", "/v1/workers/{worker_id}"): owner("worker.forget"),
    # the owner's affairs
    ("POST", "/v1/grants"): owner("grant.give"),
    ("GET", "/v1/grants"): owner("grant.read"),
    ("DELETE", "/v1/grants/{owner}"): owner("grant.withdraw"),
    ("GET", "/v1/guards"): owner("guard.read"),
    ("POST", "/v1/guards/reset"): owner("guard.reset"),
    ("GET", "/v1/usage"): owner("usage.read"),
    # keys
    ("POST", "/v1/keys"): owner("key.mint"),
    ("GET", "/v1/keys"): owner("key.read"),
    ("DELETE", "/v1/keys/{key_id}"): owner("key.revoke"),
    ("POST", "/v1/keys/{key_id}/rotate"): owner("key.rotate"),
    ("POST", "/v1/api-keys"): owner("key.mint"),
    ("GET", "/v1/api-keys"): owner("key.read"),
    ("GET", "/v1/api-keys/{key_id}"): owner("key.read"),
    ("DELETE", "/v1/api-keys/{key_id}"): owner("key.revoke"),
    ("GET", "/v1/auth/me"): ITSELF,
    ("GET", "/v1/auth/key"): ITSELF,
    ("POST", "/v1/auth/key/regenerate"): ITSELF,
}
