"""What became of a message to all who fit, as its sender reads it."""

from contracts.records import Agent, Decision, JsonObject
from gateway.peer_views import as_theirs, peer_fields
from gateway.problems import error_view
from gateway.selections import SentToAll
from router.explain import decision_view
from router.service import Draft, Standing


def sent_view(result: SentToAll, *, is_theirs: bool) -> JsonObject:
    """Every message with its trace, and everybody who got none."""
    view = {
        "selection": result.selection,
        "messages": [_message(standing, is_theirs=is_theirs) for _, standing in result.sent.values()],
        "failures": [{"to": _addressee(agent), "error": error_view(why)} for agent, why in result.failed.values()],
    }
    return {**view, "replayed": True} if result.is_replayed else view


def route_view(draft: Draft, decision: Decision) -> JsonObject:
    """Where one message would go."""
    return {
        "to": _addressee(draft.recipient),
        "delivery_mode": draft.wish.delivery_mode,
        "live_fallback_mode": draft.wish.fallback.value,
        **decision_view(decision),
    }


def _message(standing: Standing, *, is_theirs: bool) -> JsonObject:
    view = standing.explained
    shown = as_theirs(view) if is_theirs else view
    replayed = {"replayed": True} if standing.replayed else {}
    return {**shown, **peer_fields(view), **replayed}


def _addressee(agent: Agent) -> JsonObject:
    return {"agent_id": agent.id, "slug": agent.slug, "owner": agent.owner}
