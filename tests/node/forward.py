"""TCP ports of this machine's loopback address that lead into another network namespace. A socket stays in the namespace in which it
was made: `listen` makes them and becomes the program that enters the namespace; in there `serve` accepts and connects.

    forward.py listen FILE COUNT PROGRAM ARGUMENT...    writes the ports to FILE
    forward.py serve ADDRESS:PORT...                    one for each of them
"""
import asyncio
import os
import socket
import sys

FIRST = 100  # the file descriptors that are handed on


def listen(file, count, *program):
    ports = []
    for number in range(int(count)):
        listener = socket.create_server(("127.0.0.1", 0))
        ports.append(str(listener.getsockname()[1]))
        os.dup2(listener.fileno(), FIRST + number)
    with open(file, "w") as out:
        print(*ports, file=out)
    os.execvp(program[0], program)


async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()


def connect_to(host, port):
    async def accepted(reader, writer):
        try:
            there, back = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, back), copy(there, writer))
        for end in (writer, back):
            end.close()

    return accepted


async def serve(*targets):
    servers = []
    for number, target in enumerate(targets):
        host, port = target.rsplit(":", 1)
        listener = socket.socket(fileno=FIRST + number)
        servers.append(await asyncio.start_server(connect_to(host, int(port)), sock=listener))
    await asyncio.gather(*(server.serve_forever() for server in servers))


if sys.argv[1] == "listen":
    listen(*sys.argv[2:])
else:
    asyncio.run(serve(*sys.argv[2:]))
