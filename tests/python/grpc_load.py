"""Calls the server of grpc_server.py for some seconds, many calls at a time; prints one JSON object of what failed."""

import asyncio
import json
import sys
import time

import grpc

target, seconds = sys.argv[1], float(sys.argv[2])
failures = {}
calls = 0


async def caller(channel, end):
    global calls
    unary = channel.unary_unary("/lab.Greeter/Unary")
    while time.monotonic() < end:
        try:
            if await unary(b"mesh", timeout=10) != b"hello mesh":
                raise RuntimeError("another answer")
        except Exception as error:  # the claim's verdict carries whatever went wrong
            text = f"{error.code()}: {error.details()}" if isinstance(error, grpc.RpcError) else repr(error)
            failures[text] = failures.get(text, 0) + 1
        calls += 1


async def main():
    end = time.monotonic() + seconds
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(target, options=options) for _ in range(4)]
    await asyncio.gather(*(caller(channel, end) for channel in channels for _ in range(8)))
    print(json.dumps({"calls": calls, "failures": failures}))


asyncio.run(main())
