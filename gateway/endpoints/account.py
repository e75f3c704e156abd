"""The account: who one is, a new key, a webhook's secret, usage, registration, and what this server is."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request
from pydantic import ValidationError

from contracts.cues import CueStatus
from contracts.errors import Conflict, Forbidden, Malformed, NotFound, Unavailable
from contracts.records import Principal
from contracts.tenant_events import EventType
from contracts.words import State
from gateway.auth import authorize
from gateway.body import read_object
from gateway.endpoints.health import states_of_parts
from gateway.keys import PREFIX
from gateway.limits import LimitSettings
from gateway.oidc import is_token_bearer
from gateway.peer_views import is_peers_client, usage_as_theirs
from gateway.ports import Query
from gateway.problems import refusal_of
from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_account import (
    AccountView,
    InfoView,
    KeyHintView,
    LivelinessView,
    NewAccount,
    NewKeyView,
    NewWebhookSecretView,
    RegisteredView,
    StatusView,
    UsageView,
    WebhookSecretView,
)
from gateway.usage import PLAN, month_starts, this_month, usage_view
from gateway.views import principal_view

endpoints = APIRouter(route_class=StrictRoute, tags=["account"])
open_doors = APIRouter(tags=["account"])
"""What answers without a key."""

SHOWN_OF_A_KEY: Final = 12
Confirmed = Annotated[str | None, Header(alias="X-Confirm-Destructive", description="`true`, or nothing is done.")]
_NEW_ACCOUNT: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/NewAccount"}}},
    }
}


@endpoints.get("/v1/auth/me", responses={200: {"model": AccountView}})
async def who_am_i(caller: Caller, house: House) -> Answer:
    """The owner this key or token speaks for, and what it is; of the owner only what the key may read."""
    may_read = authorize(caller, "usage.read", caller.owner)
    return Answer(
        {
            **principal_view(caller),
            "kind": _kind_of(caller),
            "email": await house.accounts.email_of(caller.owner) if may_read else None,
            "plan": PLAN,
            "slug": caller.owner,
            "api_key_prefix": _beginning_of(caller),
            "active_cues": await house.cues.count(caller.owner) if may_read else None,
            "active_cue_limit": None,
            "executions_this_month": await _received_this_month(caller, house) if may_read else None,
            "monthly_execution_limit": None,
            "rate_limit_per_minute": per_minute(house.parts.limits),
            "has_webhook_secret": False,
        }
    )


@endpoints.get("/v1/auth/key", responses={200: {"model": KeyHintView}})
async def which_key(caller: Caller) -> Answer:
    """The beginning of this key. Only its hash is stored, so nobody can be told the rest."""
    message = "A key is shown once, when it is minted."
    return Answer({"api_key": None, "prefix": _beginning_of(caller), "message": message})


@endpoints.post("/v1/auth/key/regenerate", responses={200: {"model": NewKeyView}})
async def regenerate_key(caller: Caller, house: House, confirmed: Confirmed = None) -> Answer:
    """A new key in place of the one this request was made with, which is dead within five seconds."""
    _require_confirmation(confirmed)
    if is_token_bearer(caller):
        raise Conflict("no_api_key", "This request was made with a token, whose provider renews it.")
    gone, record, text = await house.keys.renew(caller)
    await house.notices.key(EventType.KEY_CREATED, record)
    await house.notices.key(EventType.KEY_REVOKED, gone)
    return Answer({"api_key": text, "key_id": record.key_id, "previous_key_revoked": True})


@endpoints.get("/v1/agents/{ref}/webhook-secret", responses={200: {"model": WebhookSecretView}})
async def read_webhook_secret(ref: str, caller: Caller, house: House) -> Answer:
    """The secret an agent's webhooks are signed with, where the installation lets it be read again."""
    agent = await house.directory.find(ref, caller, action="agent.secret", field="ref")
    if agent.webhook_secret is None:
        raise NotFound("no_webhook_secret", "This agent has no webhook.")
    if not house.parts.webhook_secret_readable or house.parts.webhook_door.public_key(agent.webhook_secret):
        raise Forbidden("secret_shown_once", "A webhook's secret is shown once, when it is made. Rotate it.")
    return Answer({"webhook_secret": agent.webhook_secret})


@endpoints.post("/v1/agents/{ref}/webhook-secret/regenerate", responses={200: {"model": NewWebhookSecretView}})
async def regenerate_webhook_secret(ref: str, caller: Caller, house: House, confirmed: Confirmed = None) -> Answer:
    """Another secret; what is signed with the old one ends within two seconds."""
    _require_confirmation(confirmed)
    agent = await house.agents.renew_webhook_secret(ref, caller)
    await house.notices.agent(EventType.AGENT_UPDATED, agent)
    return Answer({"webhook_secret": agent.webhook_secret, "previous_secret_revoked": True})


@endpoints.get("/v1/usage", responses={200: {"model": UsageView}})
async def usage(request: Request, caller: Caller, house: House) -> Answer:
    """What one's agents received, by where it stands and by month."""
    queries, now = house.parts.queries, house.parts.clock.now()
    await queries.settle()
    counts = {state: await queries.count(Query(owner=caller.owner, states=(state,))) for state in State}
    received = await queries.received_before(caller.owner, month_starts(now))
    cues = await house.cues.of_owner(caller.owner, None)
    view = usage_view(
        counts,
        received,
        now,
        requests_per_minute=per_minute(house.parts.limits),
        n_cues=len(cues),
        n_active_cues=sum(each.status is CueStatus.ACTIVE for each in cues),
    )
    return Answer(usage_as_theirs(view) if is_peers_client(request.scope["headers"]) else view)


@open_doors.post(
    "/v1/auth/register", status_code=201, responses={201: {"model": RegisteredView}}, openapi_extra=_NEW_ACCOUNT
)
async def register(request: Request, house: House) -> Answer:
    """An owner's name and a first key, where the installation is open for it."""
    if not house.parts.open_registration:
        raise NotFound("not_found", "There is nothing at this path.")
    try:
        wanted = NewAccount.model_validate(await read_object(request.scope, request.receive))
    except ValidationError as error:
        raise refusal_of(error.errors(include_url=False, include_input=False)) from None
    record, text = await house.accounts.register(wanted.email)
    await house.notices.key(EventType.KEY_CREATED, record)
    return Answer({"api_key": text, "email": wanted.email.lower(), "owner": record.owner}, 201)


@open_doors.get("/v1/info", responses={200: {"model": InfoView}})
async def info(request: Request) -> Answer:
    """What this server is."""
    return Answer(
        {
            "name": "postroom",
            "version": request.app.version,
            "authorization_backend": "SameOwner",
            "authentication_paths": {"per_user_api_key": True, "internal_token_with_on_behalf_of": False},
            "disabled_primitives": [],
        }
    )


@open_doors.get("/health", responses={200: {"model": LivelinessView}})
async def health(house: House) -> Answer:
    """The neighbours by name; 200 whatever they say."""
    parts = await states_of_parts(house)
    is_well = all(state == "ok" for state in parts.values())
    return Answer({"status": "healthy" if is_well else "degraded", "services": parts})


@open_doors.get("/status", responses={200: {"model": StatusView}, 503: {"model": StatusView}})
async def status(house: House) -> Answer:
    """Whether requests can be served."""
    wrong = [name for name, state in (await states_of_parts(house)).items() if state != "ok"]
    if wrong:
        return Answer({"status": "down", "reason": f"{wrong[0]} does not answer"}, 503, {"Retry-After": "1"})
    return Answer({"status": "up"})


def per_minute(limits: LimitSettings) -> int | None:
    """How many requests a key may make a minute; None without a limit."""
    return round(limits.per_key_per_s * 60) or None


def _beginning_of(caller: Principal) -> str:
    """Of a key; of a token, which has nothing that may be shown, what stands in a key id's place."""
    return (caller.key_id if is_token_bearer(caller) else f"{PREFIX}{caller.key_id}")[:SHOWN_OF_A_KEY]


def _kind_of(caller: Principal) -> str:
    if is_token_bearer(caller):
        return "token"
    if caller.service_account_id is not None:
        return "service_account"
    return "agent" if caller.agent_id is not None else "key"


async def _received_this_month(caller: Caller, house: House) -> int | None:
    """None while nobody can say: who one is does not depend on it."""
    starts = month_starts(house.parts.clock.now(), 1)
    try:
        return this_month(await house.parts.queries.received_before(caller.owner, starts))
    except Unavailable:
        return None


def _require_confirmation(confirmed: str | None) -> None:
    if confirmed is None or confirmed.strip().lower() != "true":
        raise Malformed("confirmation_required", "Send X-Confirm-Destructive: true.", field="X-Confirm-Destructive")
