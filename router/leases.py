"""Leases: a worker's exclusive right to an execution, numbered, so that a late worker is refused."""

from dataclasses import replace
from datetime import datetime, timedelta

from contracts.errors import Conflict, Stale
from contracts.events import Event, LeaseExtended, OutcomeRecorded
from contracts.records import Outcome, Principal, WebhookAnswer
from contracts.words import Channel, Reason
from router.deadlines import Failure, failed_attempt
from router.desk import Desk, Standing
from router.fencing import check_leasable, check_lease, leased
from router.verification import worth


class Leases(Desk):
    """The worker's side: a host's daemon for bg, a router for webhooks."""

    async def lease(
        self, execution_id: str, *, holder: str, lease_s: float, principal: Principal, fenced: bool = True
    ) -> Standing:
        """Take a bg execution for `lease_s` seconds. Raises `Conflict` when it is not to be had.

        `fenced` False is for a worker that cannot say under which lease it reports.
        """

        async def step(standing: Standing, now: datetime) -> Event:
            check_leasable(standing.execution, Channel.BG, now)
            await self._refuse_idle(standing.history.message.agent_id)
            return leased(standing.execution, holder, lease_s, now, f"key:{principal.key_id}", fenced=fenced)

        return await self._change_execution(execution_id, principal, "execution.lease", step)

    async def lease_webhook(self, ulid: str, *, holder: str, lease_s: float) -> Standing | None:
        """Take a webhook execution that is due, for one attempt; None when another router was faster."""
        standing = await self._load(ulid, fresh=False)
        now = self._clock.now()
        try:
            check_leasable(standing.execution, Channel.WEBHOOK, now)
            return await self._append(standing, leased(standing.execution, holder, lease_s, now, holder))
        except (Conflict, Stale):
            return None

    async def extend(self, execution_id: str, *, number: int, lease_s: float, principal: Principal) -> Standing:
        """Prolong the present lease to `lease_s` seconds from now. Raises `Conflict` (`stale_lease`)."""

        async def step(standing: Standing, now: datetime) -> Event:
            check_lease(standing.execution, number)
            return LeaseExtended(
                at=now,
                by=f"key:{principal.key_id}",
                execution=standing.execution.number,
                number=number,
                expires_at=now + timedelta(seconds=lease_s),
            )

        return await self._change_execution(execution_id, principal, "execution.lease", step)

    async def release(
        self, execution_id: str, *, number: int, reason_detail: str, detail: str | None, principal: Principal
    ) -> Standing:
        """The attempt under this lease failed: queue again, or end exhausted. Raises `Conflict` (`stale_lease`)."""
        text = f"{reason_detail}: {detail}" if detail else reason_detail

        async def step(standing: Standing, now: datetime) -> Event:
            check_lease(standing.execution, number)
            failure = Failure(reason=Reason.ATTEMPT_FAILED, detail=text)
            return failed_attempt(standing.execution, failure, now, self._dice(), f"key:{principal.key_id}")

        return await self._change_execution(execution_id, principal, "execution.lease", step)

    async def settle_webhook(
        self, standing: Standing, ended: Outcome | Failure, *, by: str, answer: WebhookAnswer | None = None
    ) -> Standing | None:
        """Record what came of a webhook attempt; None when the lease had been lost in the meantime."""
        now, execution = self._clock.now(), standing.execution
        event: Event
        if isinstance(ended, Failure):
            event = failed_attempt(execution, ended, now, self._dice(), by)
        else:
            mode = standing.history.message.wish.verification
            state = worth(mode, success=ended.success, evidence=ended.evidence)
            event = OutcomeRecorded(
                at=now,
                by=by,
                execution=execution.number,
                outcome=replace(ended, state=state),
                reason=Reason.RECEIVER_ANSWERED,
                lease=execution.leases,
                answer=answer,
            )
        try:
            return await self._append(standing, event)
        except Stale:
            return None
