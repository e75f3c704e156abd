"""What one round measures, in order: a floor and the product take turns, so that both see the same weather."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cli.benchmark import message
from cli.benchmark.house import POLL_MESSAGES, House

IN_FLIGHT: Final = (1, 16, 64)
BATCH: Final = 64
IDLE_PER_S: Final = 100
CLAIMS_PER_S: Final = 500
PAGE: Final = 20
"""Messages on the newest page; looking for one needs no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One measurement of one round: a job of the workload and its arguments. `is_floor` says whose figure it is."""

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
    return [*measures, *_at_full_load(scene), *_at_fixed_rates(scene), *_polls(scene)]


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
        Measure(
            name="webhook", job="webhook", args={"request": _parsed(_post(scene, "webhook", house.webhook)), **idle}
        ),
        Measure(name="lag", job="lag", args={"request": _parsed(_post(scene, "inbox", house.lag)), **listed}),
    ]


def _polls(scene: Scene) -> list[Measure]:
    request = _request(
        scene.house,
        "GET",
        f"/v1/agents/{scene.house.poll}/inbox?limit={POLL_MESSAGES}",
        {"status": 200, "lengths": {"messages": POLL_MESSAGES}},
    )
    return [
        Measure(
            name=f"poll_{in_flight}",
            job="closed",
            args={"request": request, "in_flight": in_flight, "duration_s": scene.duration_s},
        )
        for in_flight in (1, 16)
    ]


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
