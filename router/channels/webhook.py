"""webhook: a signed POST to the agent's URL, retried over a day and more."""

from typing import Final

from contracts.words import Channel, DeliveryRoute, EffectiveMode, State
from router.channels.rules import ChannelRules
from router.gates import webhook_configured
from router.retry import Ladder

# Spaced like the schedules webhook receivers know: seconds first, then up to ten hours, 27.6 h in all.
LADDER: Final = Ladder(delays_s=(5, 300, 1_800, 7_200, 18_000, 36_000, 36_000))

RULES: Final = ChannelRules(
    channel=Channel.WEBHOOK,
    mode=EffectiveMode.WEBHOOK,
    route=DeliveryRoute.WEBHOOK,
    gates=(webhook_configured,),
    first_state=State.QUEUED,
    is_pushed=False,
    ladder=LADDER,
    exhausted=State.WEBHOOK_EXHAUSTED,
)
