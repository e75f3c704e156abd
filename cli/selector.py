"""The options that name agents by what they are instead of by address, shared by `send` and `route`."""

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from cli.failures import Misused


class Pick(StrEnum):
    ONE = "one"
    ALL = "all"


WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="K=V",
        help="Instead of TO: agents of which this is so (kind, name, specialization, tools, capabilities.…). "
        "All of several have to be; of one key's, any.",
    ),
]
PickOption = Annotated[
    Pick | None,
    typer.Option("--pick", help="With --where: the best of those that fit (default), or all.", show_default=False),
]
ProjectOption = Annotated[
    str | None, typer.Option("--project", help="With --where: another owner's agents.", show_default=False)
]


def addressee(to: str | None, where: list[str] | None, pick: Pick | None, project: str | None) -> Any:
    """`to` as the gateway reads it: an address, or a selector. Raises `Misused` for both, or neither."""
    if not where:
        if pick is not None or project is not None:
            raise Misused("--pick and --project go with --where")
        if to is None:
            raise Misused("name the receiver: TO, or --where")
        return to
    if to is not None:
        raise Misused("either TO or --where, not both")
    selector: dict[str, Any] = {"where": terms(where)}
    selector |= {"pick": pick.value} if pick is not None else {}
    return selector | ({"project": project} if project is not None else {})


def terms(texts: list[str]) -> dict[str, Any]:
    """`k=v` texts as a `where`; a value that is a JSON number, truth value, null or quoted text is read as that."""
    found: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise Misused("--where takes name=value")
        found.setdefault(key, []).append(_value(value))
    return {key: values[0] if len(values) == 1 else values for key, values in found.items()}


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, dict | list) else value
