"""Makes calls that fail, and prints a JSON object of status and message for each method named on the command line."""

import json
import sys

import grpc

channel = grpc.insecure_channel(sys.argv[1])
grpc.channel_ready_future(channel).result(timeout=10)
results = {}
for method in sys.argv[2:]:
    try:
        channel.unary_unary(f"/lab.Greeter/{method}")(b"", timeout=10)
        results[method] = "OK"
    except grpc.RpcError as error:
        results[method] = f"{error.code().name}: {error.details()}"
print(json.dumps(results))
