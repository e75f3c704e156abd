"""`postroom settings`: every setting there is, its value here, its default, its meaning."""

import os
from typing import TYPE_CHECKING, Any

from cli.failures import Failure
from cli.output import AsJson, print_json, print_table

if TYPE_CHECKING:
    from infra.settings import Setting

UNSET = "(unset)"


def settings(as_json: AsJson = False) -> None:
    """Print the settings gateway and router read from the environment; secrets are not shown.

    Example: POSTROOM_LOG_LEVEL=debug postroom settings
    """
    from pydantic import ValidationError

    from infra.settings import UnknownSettings, refuse_unknown_names

    try:
        refuse_unknown_names()
        rows = _rows()
    except (UnknownSettings, ValidationError) as error:
        raise Failure(str(error)) from None
    if as_json:
        print_json([row._asdict() for row in rows])
    else:
        print_table(("name", "value", "default", "meaning"), rows)


def _rows() -> "list[Setting]":
    """The settings of both programs, each name once."""
    from infra.settings import GatewaySettings, RouterSettings, describe

    found: dict[str, Setting] = {}
    for model in (GatewaySettings, RouterSettings):
        required = [field for field, info in model.model_fields.items() if info.is_required()]
        absent = [field for field in required if f"POSTROOM_{field}".upper() not in os.environ]
        # What has to be set and is not is left out of the answer rather than refused: this is where one looks it up.
        unset: dict[str, Any] = dict.fromkeys(absent, UNSET)
        present = model(**unset)
        for row in describe(model, present):
            is_absent = row.name.removeprefix("POSTROOM_").lower() in absent
            found.setdefault(row.name, row._replace(value=UNSET) if is_absent else row)
    return list(found.values())
