"""`python -m tests.e2e.flood KUBECONFIG CONNECTIONS`: lists pods as fast as it is answered, on so many connections.

Prints a line a hundred answers, the first when every connection has had one.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

from bench.api import Connection, request
from kclient.kubeconfig import load
from kcore.env import Env

ANSWERS = 100


async def main(kubeconfig: Path, connections: int) -> None:
    config = load(kubeconfig, Env.real())
    server = urlsplit(config.servers[0])
    answers = count(1)
    barrier = asyncio.Barrier(connections)
    data = request('GET', '/api/v1/namespaces/default/pods')

    async def client() -> None:
        connection = Connection(
            *await asyncio.open_connection(server.hostname, server.port, ssl=config.ssl_context(), limit=1 << 24)
        )
        await connection.call(data)
        await barrier.wait()
        while True:
            await connection.call(data)
            if next(answers) % ANSWERS == 0:
                print(ANSWERS, flush=True)

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(client())


if __name__ == '__main__':
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
