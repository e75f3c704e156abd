"""The message every measurement sends, and an answer as long as the gateway's for the HTTP floor."""

import json
from typing import Any, Final

TEXT: Final = (
    "The staging promotion is waiting for a second pair of eyes: the schema change touches two tables, the rollback "
    "was rehearsed on Tuesday, and the window closes at six. Please look at the plan and say go or no go."
)
WINDOW_S: Final = 600
"""The longest there is: windows that close would make work for the router in the middle of later rounds."""


def body(to: str, mode: str) -> dict[str, Any]:
    """The JSON of `POST /v1/messages`, about 0.4 KB."""
    message: dict[str, Any] = {
        "to": to,
        "subject": "Staging promotion",
        "message": TEXT,
        "delivery_mode": mode,
        "metadata": {"change": "4711", "team": "platform"},
    }
    if mode == "live":
        message |= {"live_fallback_mode": "none", "claim_window_s": WINDOW_S}
    return message


_GATE: Final = {
    "gate": "capability",
    "channel": "inbox",
    "verdict": "pass",
    "reason": "ok",
    "facts": {"declared": True},
}
VIEW: Final = json.dumps(
    {
        "id": "msg_01hzzzzzzzzzzzzzzzzzzzzzzz",
        "execution_id": "exec_01hzzzzzzzzzzzzzzzzzzzzzzz",
        "to": {"agent_id": "agent_abcdefghijkl", "slug": "bench-inbox", "owner": "bench"},
        "from": {"owner": "bench", "agent_id": None, "key_id": "k0123456789"},
        "state": "in_inbox",
        "accepted_at": "2000-01-01T00:00:00.000000Z",
        "expires_at": "2000-01-31T00:00:00.000000Z",
        "updated_at": "2000-01-01T00:00:00.000000Z",
        **body("bench-inbox", "auto"),
        "trace": [_GATE] * 4,
    }
).encode()
