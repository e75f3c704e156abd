"""tmp"""
import anyio, secrets
from datetime import datetime, UTC, timedelta
from contracts.ids import session_id
from tests.http_rig import running_rig
async def test_many(nats_server, redis_server, prefix):
    async with running_rig(nats_server, redis_server, prefix) as rig:
        account = await rig.max.post("/v1/projects/max/service-accounts", {"name": "workers"}, status=201)
        a = await rig.max.post("/v1/projects/max/agents", {"service_account_id": account["id"], "name": "doc"}, status=201)
        codes=[]
        async def one(i):
            r = await rig.max.call("POST", "/v1/projects/max/agents/doc/sessions", json={"transport":"sse"})
            codes.append((r.status_code, r.json().get('id') or r.json()))
        async with anyio.create_task_group() as g:
            for i in range(40): g.start_soon(one, i)
        import collections
        print(collections.Counter(c for c,_ in codes), [x for c,x in codes if c!=201][:2])
        ids=[x for c,x in codes if c==201]
        print(len(ids), len(set(ids)))
        l=await rig.max.get("/v1/projects/max/agents/doc/sessions", limit=200)
        print(len(l['items']), collections.Counter(i['status'] for i in l['items']))
        for body in ({"sessions":[{"session_id":"sess_"+"z"*26}]}, {"sessions":[{"session_id":"x\ud800"}]} if 0 else {"sessions":[{"session_id":""}]}, {"sessions":[{"session_id":"SESS_01K5Z3W8P2C4D6F8H0J2M4N6Q8"}]}, {"sessions":[{"session_id":ids[0],"age_s":1e300}]}, {"sessions":[{"session_id":ids[-1],"age_s":86400}]*3}):
            r=await rig.max.call("POST","/v1/sessions/heartbeat",json=body); print(r.status_code, r.text[:200])
        r=await rig.max.http.post("/v1/sessions/heartbeat", content=b'{"sessions":[{"session_id":"%s","age_s":NaN}]}'%ids[0].encode(), headers={"authorization":f"Bearer {rig.max.key}","content-type":"application/json"}); print(r.status_code, r.text[:150])
        r=await rig.max.http.post("/v1/sessions/heartbeat", content=b'{"sessions":[{"session_id":"\\ud800","age_s":1}]}', headers={"authorization":f"Bearer {rig.max.key}","content-type":"application/json"}); print(r.status_code, r.text[:150])
