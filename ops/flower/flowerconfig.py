"""Flower's options for a fleet. Flower executes this file; names that are no options of its own are ignored.

Start it with `celery -A ops.flower.app flower --conf=ops/flower/flowerconfig.py`. Nothing secret stands here,
on the command line or in the environment: the basic-auth user comes from the file `flower` in the folder
`FLEET_SECRETS_DIR`, as one line `user:password`.
`/metrics` and `/healthcheck` stay open under basic auth, so Flower listens on this machine only, unless
`FLOWER_ADDRESS` says otherwise; put a reverse proxy with TLS in front.
"""

import os
from math import inf

from ops.flower.secret import read_secret

address = os.environ.get("FLOWER_ADDRESS", "127.0.0.1")
port = int(os.environ.get("FLOWER_PORT", "5555"))
basic_auth = [read_secret("flower", form="user:password")]

read_only = True  # Flower shows; `scheduler` commands
tasks_columns = "name,state,result,worker,received,started,runtime,uuid"
natural_time = True
max_tasks = 10_000
purge_offline_workers = 600  # seconds

# Seconds a task ran. Floats, ending in infinity: integers crash Flower's histogram.
task_runtime_metric_buckets = [0.1, 1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, inf]
