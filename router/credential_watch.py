"""Monitors' credentials are taken back when what they stand on ends: a key, its service account, an agent.

    directory changed ──▶ whose credentials stand on it? ──▶ judged ──▶ written down ──▶ the broker told
    a key's end known before ──▶ judged then
    every `ALL_AGAIN_S`, and whenever changes may have been missed ──▶ all of them

Every router does so; the second finds it done. What is revoked is written down before the broker is told, and read
again after: of two that write the account at once the last one knows of both.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import anyio
import structlog

from contracts.clock import Clock
from contracts.directory import account_key, agent_key, api_key_key
from contracts.errors import PostroomError, Unavailable
from contracts.monitors import ACCOUNT_UNKNOWN, Credential, Monitor, Revocations, monitor_key
from contracts.words import AccountStatus
from router.revocations import covers, grounds, key_ends_at, outlived, with_revoked, without
from router.store_ports import CredentialBook, Revoker

log = structlog.get_logger(__name__)

ALL_AGAIN_S: Final = 60.0
RETRY_S: Final = 2.0
AT_ONCE: Final = 20
"""Monitors that are judged before the changed ones have their turn: each may name 200 agents."""
BRIEFLY_S: Final = 0.05
"""A burst of changes is judged together."""
MONITOR_PREFIX: Final = monitor_key("")
PREFIXES: Final = (MONITOR_PREFIX, api_key_key(""), account_key(""), agent_key(""))


@dataclass(frozen=True, slots=True)
class _Held:
    """A monitor as this router knows it, with the directory's keys its credentials stand on."""

    monitor: Monitor
    grounds: frozenset[str]


class CredentialWatch:
    """Runs beside the router's other work. `news` yields the directory's changed keys; "": some were missed."""

    def __init__(self, *, book: CredentialBook, revoker: Revoker, news: AsyncIterator[str], clock: Clock) -> None:
        self._book = book
        self._revoker = revoker
        self._news = news
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self._changed: set[str] = set()
        self._due: dict[str, datetime] = {}
        self._all_at = clock.now()
        self._bell = anyio.Event()

    async def run(self) -> None:
        """Watch until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen)
            while True:
                try:
                    await self.look()
                except PostroomError as error:
                    log.warning("credentials_not_judged", code=error.code)
                    self._all_at = self._clock.now()
                    await anyio.sleep(RETRY_S)
                await self._wait()

    async def look(self) -> None:
        """Judge what has to be judged now."""
        now = self._clock.now()
        await self._judge_changed()
        if now >= self._all_at:
            self._all_at = now + timedelta(seconds=ALL_AGAIN_S)
            await self._judge_all()
            await self._settle_all(now)
        now = self._clock.now()
        await self._judge([monitor_id for monitor_id, at in self._due.items() if at <= now], now)

    async def _judge_changed(self) -> None:
        changed, self._changed = self._changed, set()
        try:
            if changed:
                await self._judge(await self._touched(changed), self._clock.now(), changed)
        except PostroomError:
            self._changed |= changed
            raise

    async def _judge_all(self) -> None:
        """A few at a time: what changes meanwhile is not kept waiting."""
        self._held = {each.monitor_id: _Held(each, grounds(each)) for each in await self._book.monitors()}
        monitor_ids = list(self._held)
        for start in range(0, len(monitor_ids), AT_ONCE):
            await self._judge_changed()
            await self._judge(monitor_ids[start : start + AT_ONCE], self._clock.now())
        await self._judge_changed()

    # --- what to look at -------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        async for key in self._news:
            if not key:
                self._all_at = self._clock.now()
            elif key.startswith(PREFIXES):
                self._changed.add(key)
            else:
                continue
            self._bell.set()

    async def _wait(self) -> None:
        self._bell = anyio.Event()
        if self._changed:
            return
        wait_s = (min([self._all_at, *self._due.values()]) - self._clock.now()).total_seconds()
        with anyio.move_on_after(max(0.0, wait_s)):
            await self._bell.wait()
            await anyio.sleep(BRIEFLY_S)

    async def _touched(self, changed: set[str]) -> Sequence[str]:
        for key in changed:
            if key.startswith(MONITOR_PREFIX):
                await self._reload(key.removeprefix(MONITOR_PREFIX))
        return [
            monitor_id
            for monitor_id, held in self._held.items()
            if monitor_key(monitor_id) in changed or not held.grounds.isdisjoint(changed)
        ]

    async def _reload(self, monitor_id: str) -> None:
        found = await self._book.monitor(monitor_id)
        if found is None:
            self._held.pop(monitor_id, None)
        else:
            self._held[monitor_id] = _Held(found, grounds(found))

    # --- judging ---------------------------------------------------------------------------------------------------

    async def _judge(self, monitor_ids: Iterable[str], now: datetime, changed: Collection[str] = ()) -> None:
        """Of what has not changed, what was heard of before is new enough."""
        lost: dict[str, list[Credential]] = {}
        for monitor_id in monitor_ids:
            self._due.pop(monitor_id, None)
            held = self._held.get(monitor_id)
            fresh = held.grounds if held and monitor_key(monitor_id) in changed else changed
            for each in held.monitor.credentials if held else ():
                end = await self._end(each, now, fresh)
                if held is not None and end is not None and end <= now < each.expires_at:
                    lost.setdefault(held.monitor.account, []).append(each)
                elif end is not None and now < end < each.expires_at:
                    self._due[monitor_id] = min(end, self._due.get(monitor_id, end))
        for account, credentials in lost.items():
            await self._revoke(account, credentials, now)

    async def _end(self, credential: Credential, now: datetime, fresh: Collection[str]) -> datetime | None:
        """From when on the credential counts no more; None: until it expires. `fresh` is read as it is now."""
        if credential.expires_at <= now:
            return None
        if credential.withdrawn_at is not None:
            return now
        end, key_id = None, credential.key_id
        if key_id is not None:
            # First, for a key may carry very many credentials, and each of these very many agents.
            end = key_ends_at(await self._book.api_key(key_id, fresh=api_key_key(key_id) in fresh), now)
        if end is not None and end <= now:
            return end
        return end if await self._may(credential, fresh) else now

    async def _may(self, credential: Credential, fresh: Collection[str]) -> bool:
        account_id = credential.service_account_id
        if account_id is not None:
            account = await self._book.service_account(account_id, fresh=account_key(account_id) in fresh)
            if account is None or account.status is not AccountStatus.ACTIVE:
                return False
        for agent_id in credential.agent_ids:
            agent = await self._book.agent(agent_id, fresh=agent_key(agent_id) in fresh)
            if agent is None or agent.deleted_at is not None:
                return False
        return True

    # --- telling ---------------------------------------------------------------------------------------------------

    async def _revoke(self, account: str, credentials: Sequence[Credential], now: datetime) -> None:
        known = await self._book.revocations(account)
        if all(covers(known, each) for each in credentials):
            return
        revised = await self._book.revise(account, partial(with_revoked, credentials=credentials, now=now))
        kept = {each.public_key for each in revised.users}
        await self._settle(account, revised, [each.public_key for each in known.users if each.public_key not in kept])
        log.info("credentials_revoked", account=account, credentials=len(credentials))

    async def _settle_all(self, now: datetime) -> None:
        """Tell the broker what it may not know yet. What fails for one account is raised when all had their turn."""
        failed: PostroomError | None = None
        for account in {held.monitor.account for held in self._held.values()}:
            try:
                await self._settle_one(account, now)
            except PostroomError as error:
                log.warning("account_not_settled", account=account, code=error.code)
                failed = error
        if failed is not None:
            raise failed

    async def _settle_one(self, account: str, now: datetime) -> None:
        """The broker is told of this account's revocations, and may forget what has expired by itself."""
        known = await self._book.revocations(account)
        if not known.users:
            return
        old = outlived(known, now)
        try:
            await self._settle(account, without(known, old), forgotten=[each.public_key for each in old])
        except Unavailable as error:
            # An account the broker has no more: an identity that was exchanged. Nobody of it is let in.
            if error.code != ACCOUNT_UNKNOWN or len(old) < len(known.users):
                raise
        if old:
            await self._book.revise(account, partial(without, users=old))

    async def _settle(self, account: str, known: Revocations, forgotten: Sequence[str] = ()) -> None:
        while True:
            await self._revoker.enforce(account, known.users, forgotten)
            latest = await self._book.revocations(account)
            if {each.public_key for each in latest.users} <= {each.public_key for each in known.users} | set(forgotten):
                return
            known = Revocations(users=tuple(each for each in latest.users if each.public_key not in forgotten))
