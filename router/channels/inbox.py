"""inbox: kept until the agent fetches and acknowledges it. It never refuses."""

from typing import Final

from contracts.words import Channel, DeliveryRoute, EffectiveMode, State
from router.channels.rules import ChannelRules

RULES: Final = ChannelRules(
    channel=Channel.INBOX,
    mode=EffectiveMode.INBOX,
    route=DeliveryRoute.INBOX,
    gates=(),
    first_state=State.IN_INBOX,
    is_pushed=True,
    expired=State.EXPIRED_UNREAD,
)
