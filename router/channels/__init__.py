"""The channels, each in a file of its own: which gates stand before it, and what becomes of an execution on it.

A new channel is a file here, its name in `contracts.words.Channel` and its rules in `ALL`.
"""

from typing import Final

from contracts.words import Channel
from router.channels import bg, inbox, live, webhook
from router.channels.rules import ChannelRules

ALL: Final[dict[Channel, ChannelRules]] = {each.RULES.channel: each.RULES for each in (live, bg, webhook, inbox)}
