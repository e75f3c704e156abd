"""The hand-over between monitor and session, as files.

    push ▶ offers/ ▶ (session) claims/ ▶ live-claim ─won──▶ deliveries/ ▶ (session) outcomes/ ▶ outbox ▶ done/
                                            │                   │                    └─ nobody can use it ▶ bad/
                                            │                   └──▶ (session) in_context/ ▶ gateway
                                            └──lost─▶ refusals/

Every step is found again from its files by a monitor that was killed in between: an offer with a claim beside it is
claimed again (the same claimer gets the same answer), a claimed execution is on the journal before its delivery is
written, and an outcome is in the outbox before anything is posted.
"""

from collections import deque
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypeVar

import anyio
import structlog
from anyio.abc import TaskGroup
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.clock import Clock
from contracts.errors import Malformed
from contracts.records import JsonObject
from monitor.bell import Bell
from monitor.claims import Claims, Granted, Refused
from monitor.contexts import Contexts, claimed_in
from monitor.folders import Folders, Session
from monitor.outbox import Outbox
from monitor.ports import Box, FolderName, Gateway, Journal, Report, Shelf, Spool, Waiting

LATE_CLAIM_S: Final = 600.0
"""How long a withdrawn offer's nonce is kept: the gateway, and not our clock, says that a claim is too late."""
CLAIM_MARGIN_S: Final = 5.0
HEARD_MAX: Final = 1_000
LAST_CLAIM_S: Final = 1.0
SPOOL_RETRY_S: Final = 1.0
CLAIMED_KEPT: Final = timedelta(days=1)
OVER: Final = frozenset({"already_claimed", "claim_window_closed", "execution_closed", "not_offered_live"})
"""Refusals that hold for every session: the offer is withdrawn."""

FromSession = TypeVar("FromSession", bound=BaseModel)


class OfferFile(BaseModel):
    """What a monitor before us wrote."""

    message_id: str
    nonce: str | None = None
    claim_before: datetime | None = None


class ClaimFile(BaseModel):
    """What a session writes to claim an offer."""

    execution_id: str
    session_token: str = Field(min_length=1, max_length=256)


class OutcomeFile(BaseModel):
    """What a session writes when its work is done."""

    model_config = ConfigDict(extra="forbid")

    success: bool
    result: Any = None
    error: str | None = Field(default=None, max_length=10_000)
    metadata: dict[str, Any] = Field(default_factory=dict)
    executed_via: Literal["live", "bg", "inbox"] = "live"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """An execution that may be claimed until `closes_at`, by our own clock."""

    execution_id: str
    message_id: str
    nonce: str | None
    claim_before: datetime | None
    closes_at: datetime

    def document(self, label: str) -> JsonObject:
        return {
            "execution_id": self.execution_id,
            "message_id": self.message_id,
            "nonce": self.nonce,
            "claim_before": self.claim_before.isoformat() if self.claim_before else None,
            "session_label": label,
        }


def offer_of(waiting: Waiting, now: datetime, *, window_s: float) -> Offer:
    """The window's length comes from the server's two instants, its beginning from our clock: the two may differ."""
    if waiting.claim_before is not None and waiting.served_at is not None:
        window_s = (waiting.claim_before - waiting.served_at).total_seconds()
    return Offer(
        execution_id=waiting.execution_id,
        message_id=waiting.message_id,
        nonce=waiting.nonce,
        claim_before=waiting.claim_before,
        closes_at=now + timedelta(seconds=window_s),
    )


class Handover:
    """The hand-over for one agent's sessions."""

    def __init__(
        self,
        *,
        folders: Folders,
        outbox: Outbox,
        gateway: Gateway,
        spool: Spool,
        journal: Journal,
        clock: Clock,
        bell: Bell,
        tasks: TaskGroup,
    ) -> None:
        self._folders = folders
        self._agent = folders.agent
        self._outbox = outbox
        self._spool = spool
        self._journal = journal
        self._clock = clock
        self._bell = bell
        self._tasks = tasks
        self._claims = Claims(gateway)
        self._contexts = Contexts(gateway=gateway, spool=spool, journal=journal, bell=bell, tasks=tasks)
        self._heard: deque[Waiting] = deque()
        self._offers: dict[str, Offer] = {}
        self._shown: dict[str, set[str]] = {}
        self._claiming: set[tuple[FolderName, str]] = set()
        self._log = structlog.get_logger().bind(agent_id=self._agent.id)

    def hear(self, waiting: Waiting) -> None:
        """A push, or what the poll found: looked at with the next tick."""
        if len(self._heard) < HEARD_MAX:
            self._heard.append(waiting)
            self._bell.ring()

    def _take_in(self, waiting: Waiting) -> None:
        """An offer that is known, or claimed already, changes nothing."""
        known = self._offers.get(waiting.execution_id)
        if known is not None and known.nonce == waiting.nonce:
            return
        if self._journal.get(Shelf.CLAIMED, waiting.execution_id) is not None:
            return
        self._open(offer_of(waiting, self._clock.now(), window_s=self._agent.claim_window_s))
        self._log.info("offer_heard", execution_id=waiting.execution_id, message_id=waiting.message_id)

    def tick(self) -> None:
        """Look once at everything sessions wrote, then at what they should be shown."""
        for folder in self._spool.folders(self._agent.slug):
            self._take_claims(folder)
            self._contexts.look(folder)
            self._take_outcomes(folder)
        while self._heard:
            self._take_in(self._heard.popleft())
        self._withdraw_closed()
        self._show_offers()

    async def recover(self) -> None:
        """Finish what a monitor that was killed had begun, before its sessions are attached anew.

        The old tokens still count until then.
        """
        async with anyio.create_task_group() as tasks:
            for folder in self._spool.folders(self._agent.slug):
                for execution_id in self._spool.names(folder, Box.OFFERS):
                    self._remember(folder, execution_id)
                for execution_id in self._spool.names(folder, Box.CLAIMS):
                    tasks.start_soon(self._claim, folder, execution_id)

    async def settle(self) -> None:
        """Wait until no claim is under way; after a cancellation that is soon."""
        with anyio.move_on_after(LAST_CLAIM_S + 0.2):
            while self._claiming:
                await anyio.sleep(0.02)

    # --- offers ----------------------------------------------------------------------------------------------------

    def _open(self, offer: Offer) -> None:
        self._offers[offer.execution_id] = offer
        self._shown.pop(offer.execution_id, None)

    def _show_offers(self) -> None:
        now = self._clock.now()
        for session in self._folders.fresh():
            for offer in self._offers.values():
                shown = self._shown.setdefault(offer.execution_id, set())
                if offer.closes_at > now and session.session_id not in shown:
                    self._show(offer, session)
                    shown.add(session.session_id)

    def _show(self, offer: Offer, session: Session) -> None:
        label = session.folder.label
        self._spool.write(session.folder, Box.OFFERS, offer.execution_id, offer.document(label))
        self._log.info("offer_shown", execution_id=offer.execution_id, label=label)

    def _withdraw_closed(self) -> None:
        now = self._clock.now()
        for offer in list(self._offers.values()):
            if offer.closes_at <= now and self._shown.pop(offer.execution_id, None) is not None:
                self._remove_files(offer.execution_id)
            if offer.closes_at + timedelta(seconds=LATE_CLAIM_S) <= now:
                del self._offers[offer.execution_id]

    def _close(self, execution_id: str) -> None:
        offer = self._offers.get(execution_id)
        if offer is not None:
            self._offers[execution_id] = replace(offer, closes_at=min(offer.closes_at, self._clock.now()))
        self._shown.pop(execution_id, None)
        self._remove_files(execution_id)

    def _remove_files(self, execution_id: str) -> None:
        for folder in self._spool.folders(self._agent.slug):
            self._spool.remove(folder, Box.OFFERS, execution_id)

    def _remember(self, folder: FolderName, execution_id: str) -> None:
        """An offer of a monitor before us: its file holds the nonce its claim needs."""
        try:
            document = self._spool.read(folder, Box.OFFERS, execution_id) or {}
            found = OfferFile.model_validate(document)
        except (Malformed, ValidationError):
            self._spool.remove(folder, Box.OFFERS, execution_id)
            return
        closes_at = self._clock.now() + timedelta(seconds=self._agent.claim_window_s)
        offer = Offer(
            execution_id=execution_id,
            message_id=found.message_id,
            nonce=found.nonce,
            claim_before=found.claim_before,
            closes_at=closes_at,
        )
        self._offers.setdefault(execution_id, offer)
        self._shown.setdefault(execution_id, set())

    # --- claims ----------------------------------------------------------------------------------------------------

    def _take_claims(self, folder: FolderName) -> None:
        for execution_id in self._spool.names(folder, Box.CLAIMS):
            if (folder, execution_id) not in self._claiming:
                self._tasks.start_soon(self._claim, folder, execution_id)
                self._claiming.add((folder, execution_id))

    async def _claim(self, folder: FolderName, execution_id: str) -> None:
        self._claiming.add((folder, execution_id))
        try:
            await self._claim_and_answer(folder, execution_id)
        except anyio.get_cancelled_exc_class():
            # We stop, and the gateway may have said yes already: the token that proves it ends with our detach.
            with anyio.move_on_after(LAST_CLAIM_S, shield=True):
                await self._claim_and_answer(folder, execution_id)
            raise
        except OSError as error:
            # The claim's file is still there: it is claimed again, and the same claimer gets the same answer.
            self._log.error("spool_failed", execution_id=execution_id, error=repr(error))
            await anyio.sleep(SPOOL_RETRY_S)
        finally:
            self._claiming.discard((folder, execution_id))

    async def _claim_and_answer(self, folder: FolderName, execution_id: str) -> None:
        request = self._read_claim(folder, execution_id)
        if request is None:
            return
        answer = await self._answer(request)
        if isinstance(answer, Granted):
            self._deliver(folder, request, answer)
        else:
            self._refuse(folder, execution_id, answer)
        self._spool.remove(folder, Box.CLAIMS, execution_id)

    async def _answer(self, request: ClaimFile) -> Granted | Refused:
        offer = self._offers.get(request.execution_id)
        if offer is None:
            return Refused(code="not_offered", message="This execution is not offered to this session.")
        left_s = (offer.closes_at - self._clock.now()).total_seconds()
        return await self._claims.claim(
            request.execution_id, request.session_token, offer.nonce, patience_s=max(left_s, 0.0) + CLAIM_MARGIN_S
        )

    def _deliver(self, folder: FolderName, request: ClaimFile, granted: Granted) -> None:
        """The journal first: with it, an outcome finds its claim whatever becomes of us."""
        execution_id = request.execution_id
        entry = {
            "slug": folder.slug,
            "label": folder.label,
            "claimed_at": self._clock.now().isoformat(),
            "outcome_before": granted.answer.get("outcome_before"),
        }
        self._journal.put(Shelf.CLAIMED, execution_id, entry)
        self._spool.write(folder, Box.DELIVERIES, execution_id, granted.answer["message"])
        self._close(execution_id)
        self._log.info("claim_won", execution_id=execution_id, label=folder.label, level=granted.answer.get("level"))

    def _refuse(self, folder: FolderName, execution_id: str, refused: Refused) -> None:
        self._log.info("claim_refused", execution_id=execution_id, label=folder.label, code=refused.code)
        self._spool.write(folder, Box.REFUSALS, execution_id, refused.document(execution_id))
        if refused.code in OVER:
            self._close(execution_id)

    def _read_claim(self, folder: FolderName, execution_id: str) -> ClaimFile | None:
        found = self._read(folder, Box.CLAIMS, execution_id, ClaimFile)
        if found is not None and found.execution_id != execution_id:
            self._spoil(folder, Box.CLAIMS, execution_id, "name_and_content_differ")
            return None
        return found

    # --- outcomes --------------------------------------------------------------------------------------------------

    def _take_outcomes(self, folder: FolderName) -> None:
        for execution_id in self._spool.names(folder, Box.OUTCOMES):
            if not self._outbox.holds(execution_id) and not self._contexts.delays(execution_id):
                self._take_outcome(folder, execution_id)

    def _take_outcome(self, folder: FolderName, execution_id: str) -> None:
        if not claimed_in(self._journal, folder, execution_id):
            self._spoil(folder, Box.OUTCOMES, execution_id, "not_claimed")
            return
        found = self._read(folder, Box.OUTCOMES, execution_id, OutcomeFile)
        if found is None:
            return
        self._outbox.put(execution_id, folder, asdict(Report(**found.model_dump())))

    # --- files from sessions ---------------------------------------------------------------------------------------

    def _read(self, folder: FolderName, box: Box, execution_id: str, model: type[FromSession]) -> FromSession | None:
        try:
            document = self._spool.read(folder, box, execution_id)
            return model.model_validate(document) if document is not None else None
        except Malformed as malformed:
            self._spoil(folder, box, execution_id, malformed.facts.get("reason", malformed.code))
        except ValidationError as invalid:
            field = "_".join(str(part) for part in invalid.errors()[0]["loc"])
            self._spoil(folder, box, execution_id, f"invalid_{field}")
        return None

    def _spoil(self, folder: FolderName, box: Box, execution_id: str, reason: str) -> None:
        """Nobody can use this file: the session is told why, and the file is put where it is not looked at again."""
        self._log.warning("spool_file_refused", session=str(folder), box=box, execution_id=execution_id, reason=reason)
        refused = Refused(code=f"{box.value.removesuffix('s')}_refused", message=reason)
        self._spool.write(folder, Box.REFUSALS, execution_id, refused.document(execution_id))
        self._spool.move(folder, execution_id, box, Box.BAD)


def forget_old_claims(journal: Journal, now: datetime) -> None:
    """Drop claims whose outcome nobody can report any more: their deadline passed a day ago."""
    for execution_id in journal.names(Shelf.CLAIMED):
        claimed = journal.get(Shelf.CLAIMED, execution_id) or {}
        over_at = datetime.fromisoformat(claimed.get("outcome_before") or claimed["claimed_at"])
        if over_at + CLAIMED_KEPT < now:
            journal.drop(Shelf.CLAIMED, execution_id)
