"""What a test has this client do; prints what it was told as JSON. Arguments: address, token."""

import json
import sys

from weir_usage import Client, LimitExceeded, WeirError

address, token = sys.argv[1:3]
client = Client(address, token)
told = {
    "first": client.report("acme", tokens=70, key="job-1"),
    "again": client.report("acme", tokens=70, key="job-1"),
    "unnamed": client.report("acme", tokens=1, requests=1, model="gpt-4o"),
    "taken": client.take("acme", tokens=19),
}
try:
    client.take("acme", tokens=20, key="job-2")
except LimitExceeded as refused:
    told["refused"] = {"violated": refused.violated, "waits": refused.retry_after is not None, "key": refused.key}
try:
    client.report("acme", tokens=71, key="job-1")
except WeirError as conflict:
    told["conflict"] = conflict.status
patient = Client(address, token, max_wait=30)
told["waited"] = [patient.take("slow", tokens=1)["tokens"] for _ in range(2)]
print(json.dumps(told))
