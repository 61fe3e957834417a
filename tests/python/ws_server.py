"""A WebSocket server: sends back what it hears; some paths behave otherwise."""

import asyncio
import sys
from http import HTTPStatus

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


def admit(connection, request):
    if request.path.startswith("/refused"):
        return connection.respond(HTTPStatus.FORBIDDEN, "members only\n")
    return None


def choose(_connection, offered):
    return "chat" if "chat" in offered else None


async def talk(connection):
    path = connection.request.path
    if path.startswith("/goodbye"):
        await connection.close(4001, "that is all")
        return
    try:
        async for message in connection:
            await connection.send(message)
    except ConnectionClosed:
        pass
    print("closed", connection.close_code, connection.close_reason, flush=True)


async def main():
    host, port = sys.argv[1].rsplit(":", 1)
    options = {"process_request": admit, "select_subprotocol": choose, "max_size": 64 << 20, "ping_interval": None}
    async with serve(talk, host, int(port), **options):
        print("ready", flush=True)
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
