"""`postroom route`: where a message would go, and why, without sending it."""

from cli.api import ApiKey, Url, connect
from cli.output import AsJson, console, print_json
from cli.selector import PickOption, ProjectOption, WhereOption, addressee
from cli.wish import FallbackOption, Mode, ModeOption, To, TtlOption, WindowOption, wish_fields


def route(
    to: To = None,
    where: WhereOption = None,
    pick: PickOption = None,
    project: ProjectOption = None,
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
    Example: postroom route --where kind=llm --where capabilities.model=claude-3-5-haiku
    """
    named = addressee(to, where, pick, project)
    with connect(url, api_key) as api:
        view = api.post("/v1/route", {"to": named, **wish_fields(mode, fallback, window_s, ttl_s)})
    if as_json:
        print_json(view)
        return
    from cli.explanation import route_lines

    screen = console()
    for each in view.get("routes", [view]):
        for line in route_lines(each):
            screen.print(line)
