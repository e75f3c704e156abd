"""Monitors' credentials at the broker: minted, withdrawn."""

from fastapi import APIRouter, Response

from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_monitors import CredentialsWanted, MonitorCredentialsView
from router.explain import instant

endpoints = APIRouter(route_class=StrictRoute, tags=["monitors"])


@endpoints.post("/v1/monitors/credentials", status_code=201, responses={201: {"model": MonitorCredentialsView}})
async def mint_credentials(wanted: CredentialsWanted, caller: Caller, house: House) -> Answer:
    """A short-lived credential for a monitor's connection to the broker, for the key it made itself."""
    minted = await house.monitor_credentials.mint(wanted, caller)
    view = {
        "jwt": minted.jwt,
        "monitor_id": minted.monitor_id,
        "expires_at": instant(minted.expires_at),
        "renew_after_s": minted.renew_after_s,
        "subjects": list(minted.subjects),
        "nats_url": house.parts.monitor_settings.nats_url,
    }
    return Answer(view, 201)


@endpoints.delete("/v1/monitors/{monitor_id}/credentials", status_code=204)
async def withdraw_credentials(monitor_id: str, caller: Caller, house: House) -> Response:
    """Withdraw all credentials of a monitor: its connections end within seconds. It may ask for others."""
    await house.monitor_credentials.withdraw(monitor_id, caller)
    return Response(status_code=204)
