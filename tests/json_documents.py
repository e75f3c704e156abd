"""JSON documents with references inside, for tests: followed, and made into schemas that stand alone."""

from typing import Any

Json = dict[str, Any]


def follow(document: Json, reference: str) -> Any:
    """What a local reference (`#/a/b`) names."""
    node: Any = document
    for step in reference.removeprefix("#/").split("/"):
        node = node[step.replace("~1", "/").replace("~0", "~")]
    return node


def payload_schema(document: Json, channel: str) -> Json:
    """The schema of what travels on a channel of an AsyncAPI document, with everything it refers to."""
    [message] = document["channels"][channel]["messages"].values()
    payload = follow(document, message["$ref"])["payload"]
    return {"allOf": [payload], "components": {"schemas": document["components"]["schemas"]}}
