"""Has a running cluster serve the endpoint as somebody careless might: CASE, and nothing of a job.

Prints what becomes of it; the cluster is the one that RAY_ADDRESS names.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ray
from ray import serve

from mlops.serving.deployment import application, build
from mlops.settings.serving import ServeSettings

case, port = sys.argv[1:]
ray.init(log_to_driver=False)
host = "0.0.0.0" if case == "serve-is-open" else "127.0.0.1"
serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": int(port)})
small = {"cpus_per_replica": 0.1}
if case == "credentials-are-gone":
    app = build(ServeSettings.model_validate(small), secrets=Path("/nowhere/credentials.json"))
elif case == "settings-are-open":
    app = application({**small, "host": "0.0.0.0"})
else:
    app = application(small)
try:
    serve.run(app, name="careless", route_prefix="/")
    print("started")
except RuntimeError:
    deployments = serve.status().applications["careless"].deployments.values()
    print(*(deployment.message for deployment in deployments))
finally:
    serve.shutdown()
