"""What one round measures, in order: a floor and the product take turns, so that both see the same weather."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cli.benchmark import message
from cli.benchmark.fleet import Hook
from cli.benchmark.house import POLL_MESSAGES, House
from cli.benchmark.stored import Stored
from router.places import IN_ALL

IN_FLIGHT: Final = (1, 16, 64)
BATCH: Final = 64
IDLE_PER_S: Final = 100
CLAIMS_PER_S: Final = 500
PAGE: Final = 20
"""Messages on the newest page; looking for one needs no more."""
POLLERS: Final = (1, 16)
BURSTS: Final = (8, 64)
READERS: Final = 100
"""As many streams as an owner may have open."""
FANOUT_PER_S: Final = 50
POLL_STORED: Final = "poll_stored"
WEBHOOKS: Final = "webhooks"
WEBHOOKS_PER_S: Final = 1_000
"""Messages to webhooks per second a measurement lasts. They are sent at once, and take as long as they take."""
HUNG: Final = 32
"""Messages to the neighbour that hangs: four are posted, the others wait for them."""
TOLD: Final = ("message.accepted", "message.delivered")
"""The events of an inbox message that is accepted and not yet fetched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One measurement of one round: a job of the workload and its arguments.

    `is_floor` says that the installation has no part in it: nothing has to settle afterwards.
    """

    name: str
    job: str
    args: Mapping[str, Any] = field(default_factory=dict)
    is_floor: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Where the measurements of a run take place, and how long each lasts. `run` makes names of one round unique."""

    house: House
    bare_url: str
    nats_url: str
    record_bytes: int
    duration_s: float
    offered_per_s: int
    lag_per_s: int
    run: str

    def count(self, rate: float) -> int:
        return max(1, round(rate * self.duration_s))


def round_of(scene: Scene) -> list[Measure]:
    """All measurements of one round."""
    measures: list[Measure] = []
    for in_flight in IN_FLIGHT:
        measures += [
            _bare(scene, in_flight),
            _accept(scene, "auto", scene.house.inbox, in_flight),
            _append(scene, in_flight),
            _accept(scene, "live", scene.house.live, in_flight),
        ]
    return [
        *measures,
        *_at_full_load(scene),
        *_at_fixed_rates(scene),
        *_polls(scene),
        *(measure for size in BURSTS for measure in _bursts(scene, size)),
        _fanout(scene, "fanout_1", 1),
        _fanout(scene, "fanout", READERS),
    ]


def round_over_stored(scene: Scene, stored: Stored) -> list[Measure]:
    """What one round measures on inboxes with few and with many messages: the same poll on each in turn."""
    measures: list[Measure] = []
    for in_flight in POLLERS:
        measures += [
            _stored_poll(scene, f"few_newest_{in_flight}", [stored.few.newest], in_flight),
            _stored_poll(scene, f"many_newest_{in_flight}", [stored.many.newest], in_flight),
            _stored_poll(scene, f"few_deep_{in_flight}", stored.few.deep, in_flight),
            _stored_poll(scene, f"many_deep_{in_flight}", stored.many.deep, in_flight),
        ]
    return measures


def round_to_webhooks(scene: Scene, fleet: Sequence[Hook]) -> list[Measure]:
    """What one round measures of webhooks to many hosts: aiohttp alone, the sender alone, the whole product."""
    bare = {"in_flight": max(IN_FLIGHT), "duration_s": scene.duration_s}
    sent = {"in_flight": IN_ALL, "duration_s": scene.duration_s}
    requests = [_parsed(_post(scene, "webhook", hook.agent)) | {"key": hook.key} for hook in fleet]
    args = {"requests": requests, "count": scene.count(WEBHOOKS_PER_S)}
    return [
        Measure(name=f"{WEBHOOKS}_bare", job="webhooks_bare", args=bare, is_floor=True),
        Measure(name=f"{WEBHOOKS}_sent", job="webhooks_sent", args=sent, is_floor=True),
        Measure(name=WEBHOOKS, job="webhooks", args=args),
    ]


def filling(scene: Scene, agent: str) -> dict[str, Any]:
    """The request that fills an agent's inbox."""
    return _post(scene, "inbox", agent)


def posting(scene: Scene) -> Callable[[str, str], dict[str, Any]]:
    """The requests that send the benchmark's message, by mode and agent."""
    return lambda mode, agent: _post(scene, mode, agent)


def warm_up(scene: Scene) -> Measure:
    return _accept(scene, "auto", scene.house.inbox, max(IN_FLIGHT))


def _at_full_load(scene: Scene) -> list[Measure]:
    batch = {"url": scene.nats_url, "size": BATCH, "duration_s": scene.duration_s, "record_bytes": scene.record_bytes}
    request = _post(scene, "auto", scene.house.inbox) | {"unique_header": "Idempotency-Key", "run": scene.run}
    keyed = {"request": request, "in_flight": max(IN_FLIGHT), "duration_s": scene.duration_s}
    return [
        Measure(name=f"batch_{BATCH}", job="batches", args=batch, is_floor=True),
        Measure(name=f"accept_keyed_{max(IN_FLIGHT)}", job="closed", args=keyed),
    ]


def _at_fixed_rates(scene: Scene) -> list[Measure]:
    house, offered = scene.house, _at(scene, scene.offered_per_s)
    idle, claims = _at(scene, IDLE_PER_S), _at(scene, CLAIMS_PER_S)
    hears = {"nats_url": scene.nats_url, "subject": f"live.{house.live}.>"}
    inbox, live = _post(scene, "auto", house.inbox), _post(scene, "live", house.live)
    pushed = {"url": scene.nats_url, "record_bytes": scene.record_bytes, **idle}
    listed = {"list_path": f"/v1/executions?agent={house.lag}&limit={PAGE}", **_at(scene, scene.lag_per_s)}
    return [
        Measure(name="answer", job="offered", args={"request": inbox, **offered}),
        Measure(name="pushed_append", job="pushed_appends", args=pushed, is_floor=True),
        Measure(name="push", job="push", args={"request": _parsed(live), **hears, **idle}),
        Measure(
            name="claim", job="claims", args={"request": _parsed(live), "token": house.session_token, **hears, **claims}
        ),
        *_webhook(scene),
        Measure(name="lag", job="lag", args={"request": _parsed(_post(scene, "inbox", house.lag)), **listed}),
    ]


def _webhook(scene: Scene) -> list[Measure]:
    args = {"request": _parsed(_post(scene, "webhook", scene.house.webhook)), **_at(scene, IDLE_PER_S)}
    hung = {"hung_request": _post(scene, "webhook", scene.house.hung), "hung_count": HUNG}
    return [
        Measure(name="webhook", job="webhook", args=args),
        Measure(name="webhook_hung", job="webhook_hung", args={**args, **hung}),
    ]


def _polls(scene: Scene) -> list[Measure]:
    request = _poll(scene, f"/v1/agents/{scene.house.poll}/inbox?limit={POLL_MESSAGES}")
    return [
        Measure(
            name=f"poll_{in_flight}",
            job="closed",
            args={"request": request, "in_flight": in_flight, "duration_s": scene.duration_s},
        )
        for in_flight in POLLERS
    ]


def _stored_poll(scene: Scene, name: str, paths: Sequence[str], in_flight: int) -> Measure:
    args = {
        "request": _poll(scene, paths[0]),
        "paths": list(paths),
        "in_flight": in_flight,
        "duration_s": scene.duration_s,
    }
    return Measure(name=f"{POLL_STORED}_{name}", job="in_turn", args=args)


def _poll(scene: Scene, path: str) -> dict[str, Any]:
    return _request(scene.house, "GET", path, {"status": 200, "lengths": {"messages": POLL_MESSAGES}})


def _bursts(scene: Scene, size: int) -> list[Measure]:
    """As many sends at once, each under a key of its own, then all under one."""
    measures = []
    for name, one_key in (("own_key", False), ("same_key", True)):
        # The status of each answer is judged together with those of its burst.
        request = _post(scene, "auto", scene.house.inbox) | {
            "unique_header": "Idempotency-Key",
            "run": f"{scene.run}-{name}-{size}",
        }
        args = {"request": request, "size": size, "one_key": one_key, "duration_s": scene.duration_s}
        measures.append(Measure(name=f"{name}_{size}", job="bursts", args=args))
    return measures


def _fanout(scene: Scene, name: str, readers: int) -> Measure:
    args = {
        "request": _parsed(_post(scene, "inbox", scene.house.inbox)),
        "stream_path": "/v1/events/stream",
        "readers": readers,
        "types": list(TOLD),
        **_at(scene, FANOUT_PER_S),
    }
    return Measure(name=name, job="fanout", args=args)


def _accept(scene: Scene, mode: str, agent: str, in_flight: int) -> Measure:
    args = {"request": _post(scene, mode, agent), "in_flight": in_flight, "duration_s": scene.duration_s}
    return Measure(name=f"accept_{mode}_{in_flight}", job="closed", args=args)


def _bare(scene: Scene, in_flight: int) -> Measure:
    request = _post(scene, "auto", scene.house.inbox) | {"url": scene.bare_url}
    args = {"request": request, "in_flight": in_flight, "duration_s": scene.duration_s}
    return Measure(name=f"bare_{in_flight}", job="closed", args=args, is_floor=True)


def _append(scene: Scene, in_flight: int) -> Measure:
    args = {
        "url": scene.nats_url,
        "in_flight": in_flight,
        "duration_s": scene.duration_s,
        "record_bytes": scene.record_bytes,
    }
    return Measure(name=f"append_{in_flight}", job="appends", args=args, is_floor=True)


def _at(scene: Scene, rate: int) -> dict[str, Any]:
    return {"rate": rate, "count": scene.count(rate)}


def _post(scene: Scene, mode: str, agent: str) -> dict[str, Any]:
    expected = {"status": 201, "members": ["id", "execution_id", "state"]}
    if mode == "live":
        # A live message that falls through to something else is not what is measured.
        expected["values"] = {"state": "offered"}
    return _request(scene.house, "POST", "/v1/messages", expected, message.body(agent, mode))


def _request(house: House, method: str, path: str, expected: Mapping[str, Any], body: Any = None) -> dict[str, Any]:
    return {
        "url": house.url,
        "key": house.key,
        "method": method,
        "path": path,
        "expected": dict(expected),
        "body": body,
    }


def _parsed(request: dict[str, Any]) -> dict[str, Any]:
    """The same request, with every answer's body checked."""
    return {**request, "expected": {**request["expected"], "parsed_share": 1}}


def names(measures: Sequence[Measure]) -> list[str]:
    return [measure.name for measure in measures]
