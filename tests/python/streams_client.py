"""Keeps a WebSocket, a gRPC stream both ways and a TCP connection open, and asks an echo of each again and again until
a file appears. Prints one JSON object: how many echoes each had, and what ended it."""

import asyncio
import json
import sys
from pathlib import Path

import grpc
from websockets.asyncio.client import connect

websocket, rpc, tcp, stop = sys.argv[1:5]
results = {}
PAUSE = 0.05


def goes_on():
    return not Path(stop).exists()


async def keep(name, open_stream):
    count, ended = 0, None
    try:
        async with asyncio.timeout(20):
            echo, close = await open_stream()
        print("open", name, flush=True)
        while goes_on():
            message = f"{name} {count}"
            heard = await asyncio.wait_for(echo(message), 10)
            if heard != message:
                raise RuntimeError(f"{message!r} came back as {heard!r}")
            count += 1
            await asyncio.sleep(PAUSE)
        await close()
    except Exception as error:  # the claim's verdict carries whatever went wrong
        ended = repr(error)[:300]
        print("ended", name, flush=True)
    results[name] = {"echoes": count, "ended": ended}


async def open_websocket():
    ws = await connect(f"ws://{websocket}/chat", proxy=None, ping_interval=None)

    async def echo(message):
        await ws.send(message)
        return await ws.recv()

    return echo, ws.close


async def open_grpc():
    channel = grpc.aio.insecure_channel(rpc)
    call = channel.stream_stream("/lab.Greeter/BothWays")()

    async def echo(message):
        answer = grpc.aio.EOF
        if not call.done():
            await call.write(message.encode())
            answer = await call.read()
        if answer is grpc.aio.EOF:
            raise RuntimeError(f"ended with {await call.code()}: {await call.details()}")
        return answer.decode().removeprefix("re: ")

    async def close():
        await call.done_writing()
        if await call.code() != grpc.StatusCode.OK:
            raise RuntimeError(f"ended with {await call.code()}")
        await channel.close()

    return echo, close


async def open_tcp():
    host, port = tcp.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))

    async def echo(message):
        writer.write(message.encode())
        return (await reader.readexactly(len(message))).decode()

    async def close():
        writer.write_eof()
        if await reader.read() != b"":
            raise RuntimeError("more than was sent came back")
        writer.close()

    return echo, close


async def main():
    await asyncio.gather(keep("websocket", open_websocket), keep("grpc", open_grpc), keep("tcp", open_tcp))
    print(json.dumps(results), flush=True)


asyncio.run(main())
