"""Talks to the server of ws_server.py and prints one JSON object of results."""

import asyncio
import json
import random
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

results = {}
at = "ws://" + sys.argv[1]


def note(name, ok, figure):
    results[name] = {"ok": bool(ok), "figure": str(figure)[:200]}


def client(path, **more):
    return connect(at + path, max_size=64 << 20, proxy=None, ping_interval=None, open_timeout=10, **more)


async def text():
    async with client("/chat", subprotocols=["chat"]) as ws:
        said = [f"message {n} \N{SNOWMAN}" for n in range(500)]
        heard = []
        for message in said:
            await ws.send(message)
            heard.append(await ws.recv())
        note("text", heard == said and ws.subprotocol == "chat", f"{len(heard)} messages, {ws.subprotocol}")


async def binary():
    async with client("/chat", compression=None) as ws:
        sizes = [0, 1, 125, 126, 65535, 65536, 1 << 20, 16 << 20]
        same = 0
        for size in sizes:
            message = random.randbytes(size)
            await ws.send(message)
            same += await ws.recv() == message
        note("binary", same == len(sizes), f"{same} of {len(sizes)} sizes up to 16 MiB")


async def pieces():
    async with client("/chat") as ws:
        await ws.send(part for part in ["one ", "message ", "in ", "pieces"])
        heard = await ws.recv()
        note("pieces", heard == "one message in pieces", heard)


async def ping():
    async with client("/chat") as ws:
        took = []
        for _ in range(20):
            took.append(await asyncio.wait_for(await ws.ping(), 5))
        note("ping", len(took) == 20, f"{len(took)} pongs, the slowest {max(took) * 1000:.1f} ms")


async def close_codes():
    async with client("/goodbye") as ws:
        try:
            await ws.recv()
        except ConnectionClosed:
            pass
        theirs = (ws.close_code, ws.close_reason)
    async with client("/chat") as ws:
        await ws.close(4002, "enough")
        mine = (ws.close_code, ws.close_reason)
    note("close_codes", theirs == (4001, "that is all") and mine == (4002, "enough"), (theirs, mine))


async def refused():
    try:
        async with client("/refused"):
            note("refused", False, "let in")
    except InvalidStatus as error:
        answer = error.response
        note("refused", answer.status_code == 403 and answer.body == b"members only\n", (answer.status_code, answer.body))


async def main():
    for run in (text, binary, pieces, ping, close_codes, refused):
        try:
            await asyncio.wait_for(run(), 30)
        except Exception as error:  # the claim's verdict carries whatever went wrong
            note(run.__name__, False, repr(error))
    print(json.dumps(results))


asyncio.run(main())
