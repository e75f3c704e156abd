"""Who may have a lease, and whose lease counts. Pure: the number of a lease is the fence a late worker runs into."""

from datetime import datetime, timedelta

from contracts.errors import Conflict
from contracts.events import Leased
from contracts.records import Lease
from contracts.words import Channel, State
from router.execution import Execution


def check_leasable(execution: Execution, channel: Channel, now: datetime) -> None:
    """Raise `Conflict` with the code that says why this execution is not to be had on `channel` now."""
    if not execution.is_open:
        raise Conflict("execution_closed", "This execution has ended.")
    if execution.state is State.LEASED:
        raise Conflict("already_claimed", "Another worker holds this execution.")
    if execution.state is not State.QUEUED or execution.channel is not channel:
        raise Conflict("not_claimable", f"This execution does not wait for a {channel.value} worker.")
    if now > execution.expires_at:
        raise Conflict("execution_closed", "The message's time is up.")
    if execution.retry_at is not None and now < execution.retry_at:
        raise Conflict("not_due", "The next attempt is not due yet.")


def check_lease(execution: Execution, number: int) -> None:
    """Raise `Conflict` (`stale_lease`) unless `number` is the present bg lease."""
    if execution.lease is None or execution.lease.number != number or execution.channel is not Channel.BG:
        raise Conflict("stale_lease", "This lease is not the present one.")


def is_under(lease: Lease, number: int | None) -> bool:
    """Whether who names this number speaks under `lease`; a lease without a fence counts for those that name none."""
    return number == lease.number or (number is None and not lease.fenced)


def leased(execution: Execution, holder: str, lease_s: float, now: datetime, by: str, *, fenced: bool = True) -> Leased:
    """The event that gives `holder` the next lease, `lease_s` seconds long."""
    lease = Lease(
        number=execution.leases + 1,
        holder=holder,
        leased_at=now,
        expires_at=now + timedelta(seconds=lease_s),
        fenced=fenced,
    )
    return Leased(at=now, by=by, execution=execution.number, lease=lease)
