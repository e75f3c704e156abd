import time, collections, sys, logging
import anyio, pytest, schemathesis
from schemathesis.engine import from_schema
from tests.http_rig import running_rig
from tests.http_server import served
from infra.logs import configure_logs

async def test_fuzz(nats_server, redis_server, prefix):
    SEEN = collections.Counter()
    by=collections.Counter()
    async with running_rig(nats_server, redis_server, prefix) as rig, served(rig, nats_server, redis_server, prefix) as (s, port):
        def run():
            cfg = schemathesis.Config.from_dict({"seed": 1, "headers": {"Authorization": f"Bearer {rig.max.key}"},
               "generation": {"deterministic": True, "max-examples": 12},
               "phases": {"stateful": {"enabled": False}, "examples": {"enabled": True}},
               "checks": {"enabled": False, "not_a_server_error":{"enabled":True}, "status_code_conformance":{"enabled":True}, "content_type_conformance":{"enabled":True}, "response_schema_conformance":{"enabled":True}, "response_headers_conformance":{"enabled":True}, "unsupported_method":{"enabled":True}},
            })
            schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json", config=cfg)
            schema.config.base_url = f"http://127.0.0.1:{port}"
            print(schema.config.headers)
            @schemathesis.hook
            def before_call(context, case, kwargs):
                if case.query and "wait" in case.query: case.query["timeout_s"]=1
                if case.query and "wait_s" in case.query: case.query["wait_s"]=0.01
            @schemathesis.hook
            def after_call(context, case, response):
                SEEN[(case.operation.label, case.method, response.status_code)]+=1
            t=time.time()
            for e in from_schema(schema).execute():
                n=type(e).__name__
                if n=="ScenarioFinished":
                    by[str(e.phase)]+=e.elapsed_time
                    for cid, checks in e.recorder.checks.items():
                        for c in checks:
                            if str(c.status)!="success":
                                f=c.failure_info.failure
                                print("FAIL", e.phase, e.label, c.name, f.title, str(f.message)[:300].replace("\n"," "))
                elif "Error" in n or n=="EngineFinished":
                    print(n, getattr(e,'info',None), getattr(e,'stop_reason',None), time.time()-t)
                elif n in("PhaseFinished","SchemaAnalysisWarnings"): print(n, e.phase.name, getattr(e,"status",""), getattr(e,"warnings",""), time.time()-t)
            print("calls", sum(SEEN.values()), by)
        await anyio.to_thread.run_sync(run)
    for k,v in sorted(SEEN.items()): print(k,v)
