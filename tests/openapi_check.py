"""The gateway's OpenAPI document for tests, stricter than it is published, and what its operations have answered."""

from collections import Counter
from typing import Any

import httpx
import schemathesis
from schemathesis.schemas import BaseSchema

Json = dict[str, Any]
# The history shows every kind of event with the fields of its own.
OPEN_SCHEMAS = frozenset({"EventView"})


class Conformance:
    """Validates answers against the document, and keeps count of what it has seen."""

    def __init__(self, document: Json, *, base_url: str, config: Json | None = None) -> None:
        self.document = closed(document)
        self.schema: BaseSchema = schemathesis.openapi.from_dict(
            self.document, config=schemathesis.Config.from_dict({"base-url": base_url, **(config or {})})
        )
        self.seen: Counter[tuple[str, int]] = Counter()

    async def check(self, response: httpx.Response) -> None:
        """Raise unless the document has this status for this operation, and the body is as it says."""
        await response.aread()
        method, path = response.request.method, response.request.url.path
        operation = self.schema.find_operation_by_path(method, path)  # type: ignore[attr-defined]
        assert operation is not None, f"{method} {path} is not documented"
        documented = self.document["paths"][operation.path][operation.method]["responses"]
        assert str(response.status_code) in documented, f"{operation.label}: {response.status_code} is not documented"
        operation.validate_response(response)
        self.seen[operation.label, response.status_code] += 1

    def documented_successes(self) -> set[tuple[str, int]]:
        return {
            (f"{method.upper()} {path}", int(status))
            for path, operations in self.document["paths"].items()
            for method, operation in operations.items()
            for status in operation["responses"]
            if status.startswith("2")
        }


def closed(document: Json) -> Json:
    """The document in which views have the fields it names and no others: clients put up with more, we do not."""
    schemas = document["components"]["schemas"]
    for name, schema in schemas.items():
        if schema.get("additionalProperties") is True and name not in OPEN_SCHEMAS:
            schema["additionalProperties"] = False
    return document
