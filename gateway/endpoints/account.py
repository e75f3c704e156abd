"""The account: who one is, a new key, a webhook's secret, usage, registration, and what this server is."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request
from pydantic import ValidationError

from contracts.errors import Malformed, NotFound
from contracts.tenant_events import EventType
from contracts.words import State
from gateway.body import read_object
from gateway.endpoints.health import states_of_parts
from gateway.keys import PREFIX
from gateway.limits import LimitSettings
from gateway.ports import Query
from gateway.problems import refusal_of
from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_account import (
    AccountView,
    InfoView,
    LivelinessView,
    NewAccount,
    NewKeyView,
    NewWebhookSecretView,
    RegisteredView,
    StatusView,
    UsageView,
    WebhookSecretView,
)
from gateway.usage import PLAN, usage_view
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
    """The owner this key speaks for."""
    return Answer(
        {
            **principal_view(caller),
            "email": await house.accounts.email_of(caller.owner),
            "plan": PLAN,
            "slug": caller.owner,
            "api_key_prefix": f"{PREFIX}{caller.key_id}"[:SHOWN_OF_A_KEY],
            "active_cues": 0,
            "active_cue_limit": None,
            "executions_this_month": None,
            "monthly_execution_limit": None,
            "rate_limit_per_minute": per_minute(house.parts.limits),
            "has_webhook_secret": False,
        }
    )


@endpoints.post("/v1/auth/key/regenerate", responses={200: {"model": NewKeyView}})
async def regenerate_key(caller: Caller, house: House, confirmed: Confirmed = None) -> Answer:
    """A new key in place of the one this request was made with, which is dead within five seconds."""
    _require_confirmation(confirmed)
    gone, record, text = await house.keys.renew(caller)
    await house.notices.key(EventType.KEY_CREATED, record)
    await house.notices.key(EventType.KEY_REVOKED, gone)
    return Answer({"api_key": text, "key_id": record.key_id, "previous_key_revoked": True})


@endpoints.get("/v1/agents/{ref}/webhook-secret", responses={200: {"model": WebhookSecretView}})
async def read_webhook_secret(ref: str, caller: Caller, house: House) -> Answer:
    """The secret an agent's webhooks are signed with."""
    agent = await house.directory.find(ref, caller, action="agent.secret", field="ref")
    if agent.webhook_secret is None:
        raise NotFound("no_webhook_secret", "This agent has no webhook.")
    return Answer({"webhook_secret": agent.webhook_secret})


@endpoints.post("/v1/agents/{ref}/webhook-secret/regenerate", responses={200: {"model": NewWebhookSecretView}})
async def regenerate_webhook_secret(ref: str, caller: Caller, house: House, confirmed: Confirmed = None) -> Answer:
    """Another secret; what is signed with the old one ends within two seconds."""
    _require_confirmation(confirmed)
    agent = await house.agents.renew_webhook_secret(ref, caller)
    await house.notices.agent(EventType.AGENT_UPDATED, agent)
    return Answer({"webhook_secret": agent.webhook_secret, "previous_secret_revoked": True})


@endpoints.get("/v1/usage", responses={200: {"model": UsageView}})
async def usage(caller: Caller, house: House) -> Answer:
    """What one's agents received, by where it stands."""
    queries = house.parts.queries
    await queries.settle()
    counts = {state: await queries.count(Query(owner=caller.owner, states=(state,))) for state in State}
    return Answer(usage_view(counts, house.parts.clock.now(), requests_per_minute=per_minute(house.parts.limits)))


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
    owner, key = await house.accounts.register(wanted.email)
    return Answer({"api_key": key, "email": wanted.email.lower(), "owner": owner}, 201)


@open_doors.get("/v1/info", responses={200: {"model": InfoView}})
async def info(request: Request) -> Answer:
    """What this server is."""
    return Answer(
        {
            "name": "postroom",
            "version": request.app.version,
            "authorization_backend": "SameOwner",
            "authentication_paths": {"per_user_api_key": True, "internal_token_with_on_behalf_of": False},
            "disabled_primitives": ["cues"],
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


def _require_confirmation(confirmed: str | None) -> None:
    if confirmed is None or confirmed.strip().lower() != "true":
        raise Malformed("confirmation_required", "Send X-Confirm-Destructive: true.", field="X-Confirm-Destructive")
