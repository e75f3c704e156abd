"""Subjects on the broker. Built from ids that we minted and never from a user's text.

    led.<ulid>                     LEDGER: the life of one message               CORE, JetStream
    moved.<ulid>                   the same, republished for whoever is waiting  CORE
    live.<agent>.<execution>       pushes, small envelopes                       CORE → EDGE
    live.<agent>.<echo>            the question whether pushes arrive            CORE → EDGE
    bg.<agent>.<execution>
    inbox.<agent>.<execution>
    webhook.<agent>.<execution>    a webhook is being posted: for whoever listens along
    hb.<monitor>                   a monitor's heartbeats                        EDGE → CORE
    ev.<owner>.<agent>.<type>      EVENTS: what owners are told                  CORE, JetStream
    ctl.directory                  "this directory key changed"                  CORE
    ctl.attached                   "a live session attached to this agent"       CORE

A deployment that shares its broker gives each installation a `prefix`; push and heartbeat subjects carry ids that are
unique by themselves and stay as they are, because a monitor's permissions name them.
"""

from dataclasses import dataclass

from contracts.words import Channel


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Stream, bucket and subject names of one installation."""

    prefix: str = ""

    def _dotted(self, subject: str) -> str:
        return f"{self.prefix}.{subject}" if self.prefix else subject

    def _stream(self, name: str) -> str:
        return f"{self.prefix.upper()}_{name}" if self.prefix else name

    @property
    def ledger_stream(self) -> str:
        return self._stream("LEDGER")

    @property
    def ledger_filter(self) -> str:
        return self._dotted("led.>")

    def ledger(self, ulid: str) -> str:
        return self._dotted(f"led.{ulid}")

    @property
    def moved_filter(self) -> str:
        return self._dotted("moved.>")

    def moved(self, ulid: str) -> str:
        return self._dotted(f"moved.{ulid}")

    @property
    def events_stream(self) -> str:
        return self._stream("EVENTS")

    @property
    def events_filter(self) -> str:
        return self._dotted("ev.>")

    def events(self, owner: str, agent: str = "*", event_type: str = ">") -> str:
        """An event's subject, or a filter over an owner's events. Types have a dot: `message.accepted`."""
        return self._dotted(f"ev.{owner}.{agent}.{event_type}")

    @property
    def directory_stream(self) -> str:
        """The stream behind the key-value bucket `DIRECTORY`."""
        return f"KV_{self._stream('DIRECTORY')}"

    @property
    def directory_bucket(self) -> str:
        return self._stream("DIRECTORY")

    def directory_key(self, key: str) -> str:
        return f"$KV.{self.directory_bucket}.{key}"

    @property
    def directory_changed(self) -> str:
        return self._dotted("ctl.directory")

    @property
    def session_attached(self) -> str:
        return self._dotted("ctl.attached")


def ulid_of_subject(subject: str) -> str:
    """The last token: the ulid of a ledger or `moved` subject."""
    return subject.rpartition(".")[2]


def push(channel: Channel, agent_id: str, execution_id: str) -> str:
    """Where an envelope for this execution is published: `live.agent_….exec_…`."""
    return f"{channel.value}.{agent_id}.{execution_id}"


def echo(agent_id: str, echo_id: str) -> str:
    """Where an echo is asked: a live push's subject, so that it takes the very way of one."""
    return f"{Channel.LIVE.value}.{agent_id}.{echo_id}"


def is_echo(subject: str) -> bool:
    return subject.rpartition(".")[2].startswith("echo_")


def pushes_of(channel: Channel, agent_id: str) -> str:
    """What a monitor of this agent subscribes to: `live.agent_….>`."""
    return f"{channel.value}.{agent_id}.>"


def agent_of_push(subject: str) -> str:
    """The receiving agent's id in the subject of a push."""
    return subject.split(".", 2)[1]


def heartbeat(monitor_id: str) -> str:
    return f"hb.{monitor_id}"
