"""Service accounts of a project: made, listed, read, changed, deleted."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from contracts.tenant_events import EventType
from contracts.words import AccountStatus
from gateway.cursor import read_cursor, write_cursor
from gateway.project_views import account_view
from gateway.projects import owner_of
from gateway.routing import Answer, Caller, House, StrictRoute
from gateway.schemas_projects import (
    AccountStatusWord,
    NewServiceAccount,
    ServiceAccountChange,
    ServiceAccountPage,
    ServiceAccountView,
)

endpoints = APIRouter(route_class=StrictRoute, tags=["projects"])
_ACCOUNTS = "/v1/projects/{project}/service-accounts"
_ACCOUNT = _ACCOUNTS + "/{account_id}"


@endpoints.post(_ACCOUNTS, status_code=201, responses={201: {"model": ServiceAccountView}})
async def create_account(project: str, wanted: NewServiceAccount, caller: Caller, house: House) -> Answer:
    """Make a service account."""
    account = await house.service_accounts.create(owner_of(project, caller), wanted)
    await house.notices.account(EventType.ACCOUNT_CREATED, account)
    return Answer(account_view(account), 201)


@endpoints.get(_ACCOUNTS, responses={200: {"model": ServiceAccountPage}})
async def list_accounts(
    project: str,
    caller: Caller,
    house: House,
    status: AccountStatusWord | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: str | None = None,
) -> Answer:
    """The service accounts in the order they were made in, disabled ones among them."""
    owner, word = owner_of(project, caller), AccountStatus(status) if status else None
    scope = f"service-accounts:{owner}:{status}"
    after = read_cursor(cursor, scope) if cursor is not None else ""
    accounts, last = await house.service_accounts.of_owner(owner, status=word, after=after, limit=limit)
    return Answer(
        {
            "items": [account_view(account) for account in accounts],
            "next_cursor": write_cursor(last, scope) if last else None,
            "has_more": last is not None,
        }
    )


@endpoints.get(_ACCOUNT, responses={200: {"model": ServiceAccountView}})
async def read_account(project: str, account_id: str, caller: Caller, house: House) -> Answer:
    """One service account."""
    return Answer(account_view(await house.service_accounts.find(owner_of(project, caller), account_id)))


@endpoints.patch(_ACCOUNT, responses={200: {"model": ServiceAccountView}})
async def change_account(
    project: str, account_id: str, change: ServiceAccountChange, caller: Caller, house: House
) -> Answer:
    """Change what is named; the rest stays."""
    account = await house.service_accounts.change(owner_of(project, caller), account_id, change)
    await house.notices.account(EventType.ACCOUNT_UPDATED, account)
    return Answer(account_view(account))


@endpoints.delete(_ACCOUNT, status_code=204)
async def delete_account(project: str, account_id: str, caller: Caller, house: House) -> Response:
    """Delete a service account that backs nothing and whose keys do not count any more."""
    account = await house.service_accounts.delete(owner_of(project, caller), account_id)
    await house.notices.account(EventType.ACCOUNT_DELETED, account)
    return Response(status_code=204)
