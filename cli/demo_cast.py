"""Who plays in the demo: the owner and its key, three agents, and the monitor that serves the first of them."""

import json
import sys
from pathlib import Path
from typing import Final

from cli import demo_agent
from cli.api import JsonObject
from cli.async_api import AsyncApi
from cli.failures import Refused
from cli.places import write_private

OWNER: Final = "max"
APP: Final = "cue-mac-app"
NOTES: Final = "cue-notes"
HOOK: Final = "cue-hook"

APP_FIELDS: Final[JsonObject] = {
    "delivery_capabilities": ["live", "bg", "inbox"],
    "preferred_contact": "live",
    "heartbeat_age_sec": 120,
    "status": "active",
}
NOTES_FIELDS: Final[JsonObject] = {"delivery_capabilities": ["inbox"], "preferred_contact": None, "status": "active"}


async def owner_key(admin: AsyncApi, path: Path) -> str:
    """The owner's key: the one kept at `path` while the gateway takes it, else a new one put there."""
    if path.exists():
        kept = path.read_text().strip()
        try:
            if (await admin.speaking_for(kept).get("/v1/auth/me"))["owner"] == OWNER:
                return kept
        except Refused as refused:
            if refused.status != 401:
                raise
    made = await admin.post("/v1/keys", {"owner": OWNER, "name": "postroom up"})
    write_private(path, f"{made['key']}\n")
    return str(made["key"])


async def ensure_agent(api: AsyncApi, slug: str, fields: JsonObject) -> JsonObject:
    """Create the agent, or bring the one that is there in line."""
    try:
        return await api.post("/v1/agents", {"slug": slug, **{k: v for k, v in fields.items() if v is not None}})
    except Refused as refused:
        if refused.code != "slug_taken":
            raise
    return await api.patch(f"/v1/agents/{slug}", fields)


async def recreate_agent(api: AsyncApi, slug: str, fields: JsonObject) -> JsonObject:
    """Create the agent anew: a webhook's secret is shown at its creation and never again."""
    try:
        await api.delete(f"/v1/agents/{slug}")
    except Refused as refused:
        if refused.status != 404:
            raise
    return await api.post("/v1/agents", {"slug": slug, **fields})


def write_monitor_config(path: Path, *, gateway_url: str, key_file: Path, state_dir: Path) -> None:
    """The monitor's configuration: live sessions and background work of the first agent."""
    top = {
        "gateway_url": gateway_url,
        "key_file": str(key_file),
        "monitor_id": "embedded",
        "state_dir": str(state_dir),
    }
    # A handler is started for each message: without site-packages that takes milliseconds.
    argv = [sys.executable, "-I", "-S", str(Path(demo_agent.__file__).absolute())]
    tables = ["[[agents]]", f"agent = {_toml(APP)}", "[agents.background]", f"argv = {_toml(argv)}"]
    lines = [f"{name} = {_toml(value)}" for name, value in top.items()]
    write_private(path, "\n".join([*lines, "", *tables, ""]))


def _toml(value: str | list[str]) -> str:
    """TOML reads JSON's strings and lists of them, except escaped surrogates and a bare DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
