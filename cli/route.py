"""`postroom route`: where a message would go, and why, without sending it."""

from cli.api import ApiKey, Url, connect
from cli.output import AsJson, console, print_json
from cli.wish import FallbackOption, Mode, ModeOption, To, TtlOption, WindowOption, wish_fields


def route(
    to: To,
    mode: ModeOption = Mode.AUTO,
    fallback: FallbackOption = None,
    window_s: WindowOption = None,
    ttl_s: TtlOption = None,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Ask where a message would go now, and why. Nothing is sent or stored.

    Example: postroom route cue-mac-app@max --mode live --fallback none
    """
    with connect(url, api_key) as api:
        view = api.post("/v1/route", {"to": to, **wish_fields(mode, fallback, window_s, ttl_s)})
    if as_json:
        print_json(view)
        return
    from cli.explanation import route_lines

    screen = console()
    for line in route_lines(view):
        screen.print(line)
