"""What the router has to know of a channel, in one value."""

from dataclasses import dataclass
from datetime import timedelta

from contracts.records import GateResult
from contracts.words import Channel, DeliveryRoute, EffectiveMode, State, Verdict
from router.gates import GateFunction, Question, capability
from router.retry import Ladder

HOUR = timedelta(hours=1)
MONTH = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelRules:
    """One channel.

    `gates` stand before it, after the capability gate. An execution that takes the channel enters `first_state`. When
    its attempts are used up it ends in `exhausted`; when its time is up, in `expired`. `ladder` spaces the attempts.
    `is_pushed` says that a monitor is told. `ttl` is how long a message may wait on this channel alone.
    """

    channel: Channel
    mode: EffectiveMode
    route: DeliveryRoute
    gates: tuple[GateFunction, ...]
    first_state: State
    is_pushed: bool
    ttl: timedelta = MONTH
    ladder: Ladder = Ladder()
    exhausted: State = State.EXPIRED
    expired: State = State.EXPIRED

    def ask(self, q: Question) -> tuple[GateResult, ...]:
        """Ask the gates in order, up to the first "no"."""
        answers = []
        for gate in (capability, *self.gates):
            answer = gate(q, self.channel)
            answers.append(answer)
            if answer.verdict is Verdict.FAIL:
                break
        return tuple(answers)
