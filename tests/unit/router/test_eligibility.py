"""Which agents are given nothing new."""

import pytest

from contracts.records import ServiceAccount
from contracts.words import AccountStatus, AgentStatus
from router.eligibility import obstacle
from tests.builders import BG, NOW, agent


def account(status: AccountStatus) -> ServiceAccount:
    return ServiceAccount(id="sa_x", owner="max", name="workers", created_at=NOW, updated_at=NOW, status=status)


ACTIVE, DISABLED = account(AccountStatus.ACTIVE), account(AccountStatus.DISABLED)


@pytest.mark.parametrize(
    ("status", "behind", "code"),
    [
        (AgentStatus.ACTIVE, None, None),
        (AgentStatus.ACTIVE, ACTIVE, None),
        (AgentStatus.INACTIVE, None, "agent_inactive"),
        (AgentStatus.INACTIVE, ACTIVE, "agent_inactive"),
        (AgentStatus.ACTIVE, DISABLED, "service_account_disabled"),
        (AgentStatus.INACTIVE, DISABLED, "agent_inactive"),
    ],
)
def test_an_agent_out_of_service_or_without_credentials_is_given_nothing_new(
    status: AgentStatus, behind: ServiceAccount | None, code: str | None
) -> None:
    refusal = obstacle(agent(BG, status=status), behind)

    assert (refusal and refusal.code) == code
