"""The names under which the freshness store knows what it was told of, beside session ids.

host:<agent>     the host's monitor was heard of
echo:<agent>     an echo along the way of the agent's pushes was answered
asked:<agent>    the first echo was asked that has not been answered since, or the last one that was
"""

from typing import Final

HOST: Final = "host:"
ECHO: Final = "echo:"
ASKED: Final = "asked:"


def host_name(agent_id: str) -> str:
    return f"{HOST}{agent_id}"


def echo_name(agent_id: str) -> str:
    return f"{ECHO}{agent_id}"


def asked_name(agent_id: str) -> str:
    return f"{ASKED}{agent_id}"
