"""`postroom bench`: the product and the floor beneath it, measured in turn on one machine in one run.

bench (orchestrates, idle while it measures) ──JSON lines──▶ workload (generates load, holds the stopwatch)
                                             ├─▶ up           (the product, its servers, its router)
                                             └─▶ bare_server  (uvicorn and nothing else: the HTTP floor)
"""
