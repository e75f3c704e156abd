"""The options that say how a sender wants a message delivered, shared by `send` and `route`."""

from enum import StrEnum
from typing import Annotated

import typer


class Mode(StrEnum):
    LIVE = "live"
    BG = "bg"
    INBOX = "inbox"
    WEBHOOK = "webhook"
    AUTO = "auto"


class Fallback(StrEnum):
    BACKGROUND = "background"
    NONE = "none"
    LIVE_ONLY = "live_only"


To = Annotated[
    str | None,
    typer.Argument(
        metavar="TO", help="agent_…, slug@owner, or a slug of your own. Not with --where.", show_default=False
    ),
]
ModeOption = Annotated[Mode, typer.Option("--mode", help="The channel to use; auto lets the server pick.")]
FallbackOption = Annotated[
    Fallback | None,
    typer.Option(
        "--fallback",
        help="When live comes to nothing: background (default), none (fail and say why), live_only (wait for one).",
        show_default=False,
    ),
]
WindowOption = Annotated[
    int | None, typer.Option("--window-s", min=1, max=600, help="How long a live session may take to claim.")
]
TtlOption = Annotated[int | None, typer.Option("--ttl-s", min=1, max=31_536_000, help="When the message expires.")]


def wish_fields(mode: Mode, fallback: Fallback | None, window_s: int | None, ttl_s: int | None) -> dict[str, object]:
    """The wish as the gateway reads it; what was not said is left to the server."""
    fields: dict[str, object] = {"delivery_mode": mode.value}
    if fallback is not None:
        fields["live_fallback_mode"] = fallback.value
    if window_s is not None:
        fields["claim_window_s"] = window_s
    if ttl_s is not None:
        fields["ttl_s"] = ttl_s
    return fields
