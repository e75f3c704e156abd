"""What this process remembers of the directory: entries and absences, for a short time, read once for all who ask."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Entry:
    """A key's last record: its sequence and bytes. `payload` None: never written, or deleted by the record at `seq`.

    `value` keeps what was made of `payload` once somebody asked for it.
    """

    seq: int
    payload: bytes | None
    value: Any = None


class _Abandoned(Exception):
    """The task that read for all was cancelled; the next one reads."""


class DirectoryCache:
    """A bounded memory in front of `read`, each entry valid for `ttl_s` seconds after its read began."""

    def __init__(
        self,
        read: Callable[[Sequence[str]], Awaitable[Sequence[Entry]]],
        *,
        monotonic: Callable[[], float],
        ttl_s: float,
        max_entries: int,
    ) -> None:
        self._read = read
        self._monotonic = monotonic
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._entries: OrderedDict[str, tuple[Entry, float]] = OrderedDict()
        self._reads: dict[str, asyncio.Future[Entry]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, key: str) -> Entry:
        """The remembered entry, or a read that everybody who asks meanwhile shares."""
        while True:
            entry = self._remembered(key)
            if entry is not None:
                return entry
            under_way = self._reads.get(key)
            if under_way is None:
                return await self.read(key)
            try:
                # Shielded: one impatient caller must not cancel the future of all.
                return await asyncio.shield(under_way)
            except _Abandoned:
                continue

    async def get_all(self, keys: Sequence[str]) -> list[Entry]:
        """`get` of many: what is neither remembered nor being read is read together."""
        unknown = [key for key in dict.fromkeys(keys) if self._remembered(key) is None and key not in self._reads]
        entries = dict(zip(unknown, await self._read_together(unknown), strict=True)) if unknown else {}
        return [entries.get(key) or await self.get(key) for key in keys]

    async def read(self, key: str) -> Entry:
        """Ask now, and remember unless the key was dropped meanwhile."""
        [entry] = await self._read_together([key])
        return entry

    async def _read_together(self, keys: Sequence[str]) -> Sequence[Entry]:
        begun, loop = self._monotonic(), asyncio.get_running_loop()
        answers: dict[str, asyncio.Future[Entry]] = {key: loop.create_future() for key in keys}
        self._reads |= answers
        try:
            entries = await self._read(keys)
        except BaseException as error:
            for answer in answers.values():
                answer.set_exception(error if isinstance(error, Exception) else _Abandoned())
                # Perhaps nobody else asked; then it is read by nobody.
                answer.exception()
            raise
        else:
            for (key, answer), entry in zip(answers.items(), entries, strict=True):
                answer.set_result(entry)
                if self._reads.get(key) is answer:
                    self._remember(key, entry, begun + self._ttl_s)
            return entries
        finally:
            for key, answer in answers.items():
                if self._reads.get(key) is answer:
                    del self._reads[key]

    def drop(self, key: str) -> None:
        """Forget a key, and what a read under way may find: it may have begun before the change."""
        self._entries.pop(key, None)
        self._reads.pop(key, None)

    def clear(self) -> None:
        self._entries.clear()
        self._reads.clear()

    def _remembered(self, key: str) -> Entry | None:
        known = self._entries.get(key)
        if known is None:
            return None
        entry, valid_until = known
        if self._monotonic() >= valid_until:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return entry

    def _remember(self, key: str, entry: Entry, valid_until: float) -> None:
        self._entries[key] = (entry, valid_until)
        self._entries.move_to_end(key)
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
