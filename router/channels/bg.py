"""bg: a fresh subprocess per message on the agent's host, under a lease, with a few attempts."""

from typing import Final

from contracts.words import Channel, DeliveryRoute, EffectiveMode, State
from router.channels.rules import ChannelRules
from router.gates import host_fresh
from router.retry import Ladder

RULES: Final = ChannelRules(
    channel=Channel.BG,
    mode=EffectiveMode.BG,
    route=DeliveryRoute.BACKGROUND_DIRECT,
    gates=(host_fresh,),
    first_state=State.QUEUED,
    is_pushed=True,
    ladder=Ladder(delays_s=(1, 10)),
    exhausted=State.BG_EXHAUSTED,
)
