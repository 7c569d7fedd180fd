"""Failed calls of other servers are told in the network's words."""

import socket

import aiohttp
import pytest

from kapi.dialed import said


async def test_a_refused_connection_is_told_as_go_tells_it():
    with socket.socket() as closed:
        closed.bind(('127.0.0.1', 0))
        port = closed.getsockname()[1]
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError) as failed:
            await session.get(f'http://127.0.0.1:{port}/')
    assert said(failed.value) == f'dial tcp 127.0.0.1:{port}: connect: connection refused'


def test_other_failures_keep_their_words():
    assert said(OSError('no words for it')) == 'no words for it'
    assert said(TimeoutError()) == 'TimeoutError'
