"""Messages to whoever fits: to the best of them, or one to each, once however often the request is repeated.

Under an Idempotency-Key the answer stays what it was, whoever would be chosen now. The message to the first of all who
are chosen has the key's own id, and its first gate remembers whom the others went to; theirs have ids derived from key
and agent. So a repetition finds all of them, and sends what the first attempt did not get to.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

import anyio

from contracts import ids as shapes
from contracts.clock import Ids
from contracts.directory import agent_key
from contracts.errors import Rejected, Unavailable
from contracts.events import Accepted
from contracts.records import Agent, Decision, GateResult, JsonObject, Message, Principal
from gateway.candidates import PICK_ALL, Candidates, ask_of, no_agent_fits
from gateway.intake import Intake, SendHeaders
from gateway.ports import DirectoryStore
from gateway.schemas_messages import RouteQuestion, SelectedMessage
from gateway.schemas_selection import AgentSelector
from router.selection import Ask, Ranking, Selected, again_gate, facts_of_all, selection_facts, selection_gate
from router.service import Draft, Service, Standing

AT_ONCE: Final = 16
"""How many of a selection's messages are under way together; they share the commits of the ledger."""

Accept: TypeAlias = Callable[[Draft], Awaitable[Standing]]
Chosen: TypeAlias = Sequence[tuple[Agent, GateResult]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedSend:
    """One message to whoever fits, who asks, and how each message is accepted."""

    wanted: SelectedMessage
    headers: SendHeaders
    principal: Principal
    accept: Accept

    @property
    def key(self) -> str | None:
        return self.headers.idempotency_key

    @property
    def ask(self) -> Ask:
        return ask_of(self.wanted.to, self.principal)

    def headers_for(self, agent_id: str) -> SendHeaders:
        """The same headers with the key of one recipient's message. No client's key holds a zero."""
        return replace(self.headers, idempotency_key=f"{self.key}\0{agent_id}") if self.key else self.headers


@dataclass(slots=True, kw_only=True)
class SentToAll:
    """What became of a message to all who fit, by recipient."""

    selection: JsonObject
    sent: dict[str, tuple[Draft, Standing]] = field(default_factory=dict)
    failed: dict[str, tuple[Agent, Rejected | Unavailable]] = field(default_factory=dict)

    @property
    def is_replayed(self) -> bool:
        return not self.failed and all(standing.replayed for _, standing in self.sent.values())

    def in_order(self, recipients: Sequence[str]) -> "SentToAll":
        """The same in the order of the choice. Raises the first refusal where nobody was sent anything."""
        failed = {each: self.failed[each] for each in recipients if each in self.failed}
        if not self.sent:
            raise next(iter(failed.values()))[1]
        return replace(self, sent={each: self.sent[each] for each in recipients if each in self.sent}, failed=failed)


class Selections:
    """Selects, and sends to whom was chosen."""

    def __init__(
        self, *, candidates: Candidates, intake: Intake, service: Service, store: DirectoryStore, ids: Ids
    ) -> None:
        self._candidates = candidates
        self._intake = intake
        self._service = service
        self._store = store
        self._ids = ids

    async def send_one(self, send: SelectedSend) -> tuple[Draft, Standing]:
        """Send to the best of those that fit. Raises `NotFound` (`no_agent_fits`), and what `accept` does."""
        earlier, ulid = await self._place(send)
        if earlier is not None:
            return await self._repeated(send, earlier)
        ranking = await self._candidates.ranking(send.wanted.wish(), send.ask, send.principal, ulid=ulid)
        selected = Selected(ask=send.ask, gate=selection_gate(send.ask, ranking, 1), ulid=ulid)
        return await self._sent(send, ranking.candidates[0].agent, send.headers, selected)

    async def send_all(self, send: SelectedSend) -> SentToAll:
        """Send to each of those that fit: to all of them, or the answer says to whom not and why.

        Raises `NotFound` (`no_agent_fits`), `Invalid` (`too_many_recipients`), and where nobody was sent anything what
        `accept` raised for the first.
        """
        earlier, ulid = await self._place(send)
        if earlier is not None:
            return await self._completed(send, earlier)
        ranking = await self._candidates.ranking(send.wanted.wish(), send.ask, send.principal, ulid=ulid)
        result = SentToAll(selection=selection_facts(send.ask, ranking))
        recipients = [each.agent.id for each in ranking.candidates]
        done = await self._send_first(send, ranking, recipients, result) if send.key else 0
        if overtaken := next((standing for _, standing in result.sent.values() if standing.replayed), None):
            # The same request, sent twice at once: the other one was first, and its choice counts.
            return await self._completed(send, overtaken.history.message)
        rest = [
            (each.agent, selection_gate(send.ask, ranking, rank))
            for rank, each in enumerate(ranking.candidates[done:], done + 1)
        ]
        await self._send_each(send, rest, result)
        return result.in_order(recipients)

    async def routes(
        self, wanted: RouteQuestion, to: AgentSelector, headers: SendHeaders, principal: Principal
    ) -> tuple[JsonObject, list[tuple[Draft, Decision]]]:
        """Who would be sent the message, and which way it would go. Raises what sending would."""
        ask = ask_of(to, principal)
        ranking = await self._candidates.ranking(wanted.wish(), ask, principal, ulid=self._ids.ulid())
        routes = []
        for rank, each in enumerate(ranking.candidates if ask.pick == PICK_ALL else ranking.candidates[:1], 1):
            selected = Selected(ask=ask, gate=selection_gate(ask, ranking, rank))
            draft = await self._intake.addressed(
                wanted, each.agent, headers, principal, is_sent=False, selected=selected
            )
            routes.append((draft, await self._service.route(draft)))
        return selection_facts(ask, ranking), routes

    # --- what every way shares -------------------------------------------------------------------------------------

    async def _place(self, send: SelectedSend) -> tuple[Message | None, str]:
        """What was sent under the request's key before, and the ulid of the message that is chosen for."""
        if send.key is None:
            return None, self._ids.ulid()
        owner = (await self._intake.sender(send.headers, send.principal)).owner
        return await self._service.sent_under(owner, send.key), shapes.ulid_for_key(owner, send.key)

    async def _sent(
        self, send: SelectedSend, agent: Agent, headers: SendHeaders, selected: Selected
    ) -> tuple[Draft, Standing]:
        draft = await self._intake.addressed(send.wanted, agent, headers, send.principal, selected=selected)
        return draft, await send.accept(draft)

    async def _repeated(self, send: SelectedSend, earlier: Message) -> tuple[Draft, Standing]:
        """The earlier message, if it was this very request. Raises `Conflict` (`idempotency_mismatch`)."""
        return await self._once(send, await self._agent(earlier.agent_id), send.headers, Selected(ask=send.ask))

    async def _once(
        self, send: SelectedSend, agent: Agent, headers: SendHeaders, selected: Selected
    ) -> tuple[Draft, Standing]:
        """Under a key that may have been used: what stands there is found before anybody is asked anything."""
        draft = await self._intake.addressed(send.wanted, agent, headers, send.principal, selected=selected)
        if earlier := await self._service.repeated(draft):
            return draft, earlier
        await self._candidates.refuse_closed(agent, send.principal)
        return draft, await send.accept(draft)

    async def _agent(self, agent_id: str) -> Agent:
        """Deleted ones as well: what was sent to them stays."""
        found = await self._store.get(agent_key(agent_id), Agent)
        if found is None:
            raise no_agent_fits()
        return found.record

    # --- a message to each -----------------------------------------------------------------------------------------

    async def _send_first(
        self, send: SelectedSend, ranking: Ranking, recipients: Sequence[str], result: SentToAll
    ) -> int:
        """Send the message that remembers all recipients, to the first who takes it; how many were tried."""
        for rank, each in enumerate(ranking.candidates, 1):
            selected = Selected(ask=send.ask, gate=selection_gate(send.ask, ranking, rank, recipients))
            try:
                result.sent[each.agent.id] = await self._sent(send, each.agent, send.headers, selected)
            except Rejected as refusal:
                result.failed[each.agent.id] = each.agent, refusal
            else:
                return rank
        return len(recipients)

    async def _completed(self, send: SelectedSend, earlier: Message) -> SentToAll:
        """What the request was answered before, and what it did not get to."""
        draft, standing = await self._repeated(send, earlier)
        first = _first_gate(standing)
        recipients: Sequence[str] = first.facts["recipients"]
        rest = [
            (await self._agent(each), again_gate(first, rank))
            for rank, each in enumerate(recipients, 1)
            if each != earlier.agent_id
        ]
        result = SentToAll(selection=facts_of_all(first), sent={earlier.agent_id: (draft, standing)})
        await self._send_each(send, rest, result)
        return result.in_order(recipients)

    async def _send_each(self, send: SelectedSend, chosen: Chosen, result: SentToAll) -> None:
        places = anyio.CapacityLimiter(AT_ONCE)

        async def deliver(agent: Agent, gate: GateResult) -> None:
            selected, headers = Selected(ask=send.ask, gate=gate), send.headers_for(agent.id)
            async with places:
                try:
                    way = self._once if send.key else self._sent
                    result.sent[agent.id] = await way(send, agent, headers, selected)
                except (Rejected, Unavailable) as refusal:
                    result.failed[agent.id] = agent, refusal

        async with anyio.create_task_group() as group:
            for agent, gate in chosen:
                group.start_soon(deliver, agent, gate)


def _first_gate(standing: Standing) -> GateResult:
    """The selection a message was accepted with: the first answer of its first decision."""
    accepted = standing.history.events[0].event
    assert isinstance(accepted, Accepted)
    return accepted.decision.trace[0]
