"""May an agent be given anything new? Pure: what a claim, a lease and a job ask before they become somebody's.

Only the beginning of work is judged: what an agent holds already it may finish, and its sessions go on.
"""

from contracts.errors import Conflict
from contracts.records import Agent, ServiceAccount
from contracts.words import AccountStatus, AgentStatus


def obstacle(agent: Agent, account: ServiceAccount | None) -> Conflict | None:
    """Why nothing new is to be had for this agent, or None; `account` is the one that backs it."""
    if agent.status is AgentStatus.INACTIVE:
        return Conflict("agent_inactive", "The agent is inactive: it is given nothing new.")
    if account is not None and account.status is AccountStatus.DISABLED:
        return Conflict("service_account_disabled", "The agent's service account is disabled: it is given nothing new.")
    return None
