"""Fixtures: a misbehaving API server and a client of it."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path

import pytest

from kclient.api import Client
from kclient.kubeconfig import ClientConfig
from kcore.env import Env


def _module(name: str):
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f'{name}.py'))
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture
def env() -> Env:
    return Env.real(seed=1)


@pytest.fixture
async def api():
    server = _module('fake_api').FakeApi()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(api, env):
    async with Client(ClientConfig((api.url,)), env, user_agent='test') as client:
        yield client


@pytest.fixture
def until():
    """Await a condition; the deadline only ends a test that would never end."""

    async def wait(condition, deadline_s: float = 60.0):
        async with asyncio.timeout(deadline_s):
            while not condition():
                await asyncio.sleep(0.005)

    return wait
