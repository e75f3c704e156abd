"""The door of CueAPI's clients: below `/cueapi/v1` lies what lies below `/v1`, spelled as they read it. Pure.

Some of them say in no header who they are. Their base URL is what they can be given:

    SDK, MCP server, worker     <base URL>/cueapi
    command line                <base URL>/cueapi/v1
"""

from typing import Final

from starlette.types import Scope

BASE: Final = "/cueapi"
MARK: Final = (b"x-cueapi-base", BASE.encode())
"""The header that whoever comes this way is known by from here on (`peer_views.is_peers_client`)."""


def at_the_root(scope: Scope) -> Scope:
    """The same request at the root, marked as a client's of theirs; any other request as it is."""
    path: str = scope["path"]
    # Nothing else: a proxy that keeps `/metrics` in knows it by one path.
    if not path.startswith(f"{BASE}/v1/"):
        return scope
    raw = scope.get("raw_path")
    return {
        **scope,
        "path": path.removeprefix(BASE),
        "raw_path": raw.removeprefix(BASE.encode()) if raw else raw,
        "headers": [*scope["headers"], MARK],
    }
