"""live: push into a running session, which must claim within the window and attest that it is real."""

from typing import Final

from contracts.words import Channel, DeliveryRoute, EffectiveMode, State
from router.channels.rules import HOUR, ChannelRules
from router.gates import heartbeat_fresh, push_path, session_attached

RULES: Final = ChannelRules(
    channel=Channel.LIVE,
    mode=EffectiveMode.LIVE,
    route=DeliveryRoute.LIVE,
    gates=(session_attached, heartbeat_fresh, push_path),
    first_state=State.OFFERED,
    is_pushed=True,
    ttl=HOUR,
    exhausted=State.LIVE_UNCLAIMED_NO_FALLBACK,
)
