"""Agents and their sessions as the routers' presence watch reads them, and the directory's changes it follows."""

from collections.abc import AsyncGenerator, Sequence
from typing import Final

import anyio
import structlog

from contracts.directory import LiveSessions, agent_key, live_key
from contracts.errors import Unavailable
from contracts.records import Agent, LiveSession
from contracts.subjects import Names
from gateway.ports import Write
from infra.directory_store import BucketDirectory
from infra.jetstream_api import last_seq
from infra.ledger_tail import RETRY_S, Pull
from infra.nats_connection import Broker
from router.presence_ports import PresenceChange, SessionsHeld

log = structlog.get_logger(__name__)

_AGENTS: Final = agent_key("")
_SESSIONS: Final = live_key("")


class DirectoryPresence:
    """Implements `router.ports.PresenceRecords`. Every record is read as it is now."""

    def __init__(self, store: BucketDirectory, broker: Broker, names: Names) -> None:
        self._store = store
        self._broker = broker
        self._names = names

    async def agent(self, agent_id: str) -> Agent | None:
        found = await self._store.get(agent_key(agent_id), Agent, fresh=True)
        return found.record if found else None

    async def sessions(self, agent_id: str) -> SessionsHeld:
        found = await self._store.get(live_key(agent_id), LiveSessions, fresh=True)
        return SessionsHeld(sessions=found.record.sessions, seq=found.seq) if found else SessionsHeld()

    async def set_sessions(self, agent_id: str, sessions: Sequence[LiveSession], *, expected_seq: int) -> None:
        record = LiveSessions(sessions=tuple(sessions))
        await self._store.transact([Write(key=live_key(agent_id), record=record, expected_seq=expected_seq)])

    async def last_seq(self) -> int:
        return await last_seq(self._broker, self._names.directory_stream)

    async def changes(self, after: int) -> AsyncGenerator[Sequence[PresenceChange], None]:
        seen = after
        while True:
            pull = Pull(self._broker, self._names.directory_stream, seen, subject_filter=self._subjects())
            try:
                await pull.start()
                while True:
                    messages = await pull.batch()
                    if messages:
                        seen = messages[-1][0]
                    yield [self._change(message.subject, seq) for seq, message in messages]
            except Unavailable as trouble:
                pull.is_broken = True
                log.warning("directory_interrupted", after_seq=seen, reason=trouble.message)
            finally:
                await pull.stop()
            yield ()
            await anyio.sleep(RETRY_S)

    def _subjects(self) -> tuple[str, str]:
        return self._names.directory_key(f"{_SESSIONS}*"), self._names.directory_key(f"{_AGENTS}*")

    def _change(self, subject: str, seq: int) -> PresenceChange:
        kind, _, name = subject.removeprefix(self._names.directory_key("")).partition(".")
        return PresenceChange(agent_id=f"agent_{name}", seq=seq, is_of_sessions=f"{kind}." == _SESSIONS)
