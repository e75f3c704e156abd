"""Who may call what: the keys of every role, fresh objects for every call, and what each role has to be answered."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from string import Formatter
from typing import Any

import httpx

from contracts.directory import SlugEntry, account_key, agent_key, backed_key
from contracts.records import Agent, ServiceAccount
from contracts.words import Scope
from gateway.permissions import RULES, Rule
from gateway.ports import Write
from gateway.scopes import SCOPE_OF, SELF_ACTIONS
from infra.nats_keys import Kind, NatsKey
from tests.http_rig import Caller, Json, Rig

Route = tuple[str, str]
ACCOUNT_ID = "sa_01k5z3w8p2c4d6f8h0j2m4n6q8"
LISTS_BY_AGENT = {"/v1/executions", "/v1/executions/claimable", "/v1/dead-letters"}


@dataclass(frozen=True, slots=True)
class Answers:
    """What a route answers to a request that names objects of max.

    `stranger`: to somebody with a key of his own. `owner`: to max, and to every key of his that may do this.
    `elsewhere`: to a key of max that is bound to an agent the request does not name. `admin`: where it is not what
    max gets. `is_last`: the agent does not survive it.
    """

    stranger: int
    owner: int
    body: Json | None = None
    elsewhere: int = 404
    admin: int | None = None
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class Expected:
    """The status a role has to get. `acts`: the call may change what it names."""

    status: int
    code: str | None = None
    acts: bool = False


def expectations(route: Route, answers: Answers) -> dict[str, Expected]:
    """What each role has to get, by the route's rule."""
    rule = RULES[route]
    done = Expected(answers.owner, acts=True)
    found = {
        "nobody": Expected(401, "invalid_credentials"),
        "stranger": Expected(answers.stranger),
        "owner": done,
        "admin": replace(done, status=answers.admin or answers.owner),
    }
    if rule.action is None:
        return found | dict.fromkeys(("unscoped", "bound", "bound elsewhere", "account"), done)
    without = Expected(403, "insufficient_scope")
    found |= {"unscoped": without, "every other scope": without, "only the scope": done}
    if rule.is_owners:
        confined = Expected(403, "key_is_confined")
        return found | {"bound": confined, "bound elsewhere": confined, "account": without}
    found |= {"bound": done, "bound elsewhere": Expected(answers.elsewhere), "account": without}
    if rule.action in SELF_ACTIONS:
        found["account"] = done
    if answers.is_last:
        del found["bound"]
    return found


@dataclass(kw_only=True)
class Stage:
    """Max' agent, the keys of all roles, and a fresh object of any kind for whoever names one."""

    rig: Rig
    agent_id: str = ""
    keys: dict[str, Caller] = field(default_factory=dict)
    redrive_id: str = ""
    made: int = 0

    @classmethod
    async def set(cls, rig: Rig) -> "Stage":
        stage = cls(rig=rig)
        helper = await rig.max.agent("helper", "live", "inbox")
        await rig.max.agent("other")
        stage.agent_id = helper["id"]
        await back_with_account(rig, stage.agent_id)
        stage.redrive_id = (await rig.max.post("/v1/dead-letters/redrive", {"filter": {}}, status=202))["id"]
        stage.keys = {
            "nobody": rig.nobody,
            "stranger": rig.eve,
            "owner": rig.max,
            "admin": rig.admin,
            "unscoped": await stage._key(scopes=[]),
            "bound": await stage._key(agent="helper"),
            "bound elsewhere": await stage._key(agent="other"),
            "account": await stage._key(service_account_id=ACCOUNT_ID),
        }
        for scope in Scope:
            others = [each.value for each in Scope if each is not scope]
            stage.keys[f"only {scope.value}"] = await stage._key(scopes=[scope.value])
            stage.keys[f"without {scope.value}"] = await stage._key(scopes=others)
        return stage

    def caller(self, role: str, rule: Rule) -> Caller:
        if rule.action is None or role not in ("only the scope", "every other scope"):
            return self.keys[role]
        which = "only" if role == "only the scope" else "without"
        return self.keys[f"{which} {SCOPE_OF[rule.action].value}"]

    async def call(self, route: Route, answers: Answers, caller: Caller) -> httpx.Response:
        """Make the request, with fresh objects in all of its places."""
        return await self.request(route, answers, caller, await self.names(route, answers))

    async def names(self, route: Route, answers: Answers) -> dict[str, str]:
        """Fresh objects of max for all that the request names."""
        agent_id = await self._fresh_agent() if answers.is_last else self.agent_id
        names = {"ref": agent_id, "agent": agent_id, "agent_id": agent_id, "project": "max"}
        for name in sorted((_names_in(route[1]) | _names_in(answers.body)) - set(names)):
            names[name] = await self._fresh(name)
        return names

    async def request(self, route: Route, answers: Answers, caller: Caller, names: dict[str, str]) -> httpx.Response:
        method, path = route
        query = "?agent={agent}" if path in LISTS_BY_AGENT else "?for_s=0.05" if path.endswith("/stream") else ""
        return await caller.call(method, (path + query).format(**names), json=_filled(answers.body, names))

    async def _fresh(self, name: str) -> str:
        self.made += 1
        maker: Callable[[], Awaitable[str]] = getattr(self, f"_fresh_{name}")
        return await maker()

    async def _fresh_agent(self) -> str:
        self.made += 1
        return str((await self.rig.max.agent(f"mayfly-{self.made}"))["id"])

    async def _fresh_name(self) -> str:
        return f"name-{self.made}"

    async def _fresh_message_id(self) -> str:
        return str((await self.rig.max.send("helper", delivery_mode="inbox"))["id"])

    _fresh_thread_id = _fresh_message_id

    async def _fresh_execution_id(self) -> str:
        return str((await self.rig.max.send("helper", delivery_mode="inbox"))["execution_id"])

    _fresh_job_id = _fresh_execution_id

    async def _fresh_label(self) -> str:
        return str((await self.rig.max.session("helper", f"label-{self.made}"))["label"])

    async def _fresh_session_id(self) -> str:
        path, wanted = f"/v1/projects/max/agents/{self.agent_id}/sessions", {"transport": "sse"}
        return str((await self.rig.max.post(path, wanted, status=201))["id"])

    async def _fresh_account_id(self) -> str:
        path, wanted = "/v1/projects/max/service-accounts", {"name": f"account-of-max-{self.made}"}
        return str((await self.rig.max.post(path, wanted, status=201))["id"])

    async def _fresh_key_id(self) -> str:
        return (await self._key(scopes=["keys:manage"])).key_id

    async def _fresh_owner(self) -> str:
        await self.rig.max.post("/v1/grants", {"owner": f"adam-{self.made}"}, status=201)
        return f"adam-{self.made}"

    async def _fresh_worker_id(self) -> str:
        await self.rig.max.post("/v1/worker/heartbeat", {"worker_id": f"worker-of-max-{self.made}"})
        return f"worker-of-max-{self.made}"

    async def _fresh_event_type(self) -> str:
        """A type nobody has subscribed to at the agent."""
        for each in (await self.rig.max.get("/v1/agents/helper/subscriptions"))["subscriptions"]:
            await self.rig.max.delete(f"/v1/agents/helper/subscriptions/{each['id']}")
        return "message.delivered"

    async def _fresh_subscription_id(self) -> str:
        wanted = {"event_type": await self._fresh_event_type(), "delivery_target": "pull"}
        return str((await self.rig.max.post("/v1/agents/helper/subscriptions", wanted, status=201))["id"])

    async def _fresh_cue_id(self) -> str:
        wanted = {"name": f"cue-of-max-{self.made}", "to": "helper", "message": "x"}
        return str((await self.rig.max.post("/v1/cues", wanted, status=201))["id"])

    async def _fresh_monitor_id(self) -> str:
        monitor_id = f"monitor-of-max-{self.made}"
        wanted = {"monitor_id": monitor_id, "public_key": NatsKey.fresh(Kind.USER).public, "agents": ["helper"]}
        await self.rig.max.post("/v1/monitors/credentials", wanted, status=201)
        return monitor_id

    async def _fresh_redrive_id(self) -> str:
        return self.redrive_id

    async def _key(self, **limits: Any) -> Caller:
        minted = await self.rig.max.post("/v1/keys", limits, status=201)
        return Caller(http=self.rig.http, key=minted["key"], owner="max")


async def back_with_account(rig: Rig, agent_id: str) -> None:
    """Make a service account of max that backs this agent, as if the agent had been created with it."""
    store, now = rig.gateway.parts.store, rig.gateway.parts.clock.now()
    account = ServiceAccount(id=ACCOUNT_ID, owner="max", name="worker", created_at=now, updated_at=now)
    found = await store.get(agent_key(agent_id), Agent, fresh=True)
    assert found is not None
    backed = replace(found.record, service_account_id=ACCOUNT_ID)
    await store.transact(
        [
            Write(key=account_key(ACCOUNT_ID), record=account, expected_seq=0),
            Write(key=agent_key(agent_id), record=backed, expected_seq=found.seq),
            Write(key=backed_key(ACCOUNT_ID, agent_id), record=SlugEntry(agent_id=agent_id), expected_seq=0),
        ]
    )


def _names_in(value: object) -> set[str]:
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return {name for part in parts for name in _names_in(part)}
    return {name for _, name, _, _ in Formatter().parse(value) if name} if isinstance(value, str) else set()


def _filled(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_filled(each, names) for each in value]
    if isinstance(value, dict):
        return {name: _filled(each, names) for name, each in value.items()}
    return value.format(**names) if isinstance(value, str) else value
