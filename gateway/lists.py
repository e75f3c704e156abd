"""Lists of messages as answers: pages assembled from stored views, which are bytes and stay bytes."""

from collections.abc import Iterable, Sequence
from typing import Final

import anyio
from pydantic_core import from_json, to_json

from contracts.errors import PostroomError, Rejected
from contracts.records import Principal
from contracts.words import State
from gateway.peer_views import is_peers_client, with_peer_fields
from gateway.ports import Page
from router.service import Service

# Finds candidates without parsing. Metadata may contain these bytes too, so a candidate is parsed before it counts.
_MAYBE_NEW: Final = b'"state":"in_inbox"'


def page_body(name: str, views: Sequence[bytes], next_cursor: str | None, **more: int | None) -> bytes:
    """`{"<name>": [view …], "next_cursor": …}`, and more fields behind."""
    rest = to_json({"next_cursor": next_cursor, **more})
    return b'{"%s":[%s],%b' % (name.encode(), b",".join(views), rest[1:])


def spelled(views: Sequence[bytes], headers: Iterable[tuple[bytes, bytes]]) -> Sequence[bytes]:
    """The views as this client reads them: with the peer's fields for the peer's clients only."""
    return [with_peer_fields(view) for view in views] if is_peers_client(headers) else views


async def hand_out(page: Page, service: Service, principal: Principal) -> list[bytes]:
    """The views of a page, after what was new in it has been marked as delivered; what went away is left out.

    The marks are made at once, so that they share the ledger's group commits.
    """
    views: list[bytes | None] = list(page.views)
    failures: list[PostroomError] = []

    async def deliver(place: int, message_id: str) -> None:
        try:
            standing = await service.mark(message_id, State.INBOX_DELIVERED, principal)
            views[place] = to_json(standing.view)
        except Rejected:
            # Acknowledged, cancelled or expired since the page was made: it is no longer in the inbox.
            views[place] = None
        except PostroomError as error:
            failures.append(error)

    async with anyio.create_task_group() as marks:
        for place, message_id in _new_ones(page.views):
            marks.start_soon(deliver, place, message_id)
    if failures:
        raise failures[0]
    return [view for view in views if view is not None]


def _new_ones(views: Sequence[bytes]) -> list[tuple[int, str]]:
    candidates = ((place, from_json(view)) for place, view in enumerate(views) if _MAYBE_NEW in view)
    return [(place, view["id"]) for place, view in candidates if view["state"] == State.IN_INBOX]
