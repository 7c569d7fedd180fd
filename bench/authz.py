"""The chain before the handler: decisions per second, and what each stage of a request costs.

Cases: RBAC with many roles and bindings (a user of the last one asks), the Node authorizer with many pods, a service
account token checked again and for the first time, and a request's priority level.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from bench.common import Figures, Settings, emit, now
from kapi.authn.keys import FixedKeys, key_set, new_key
from kapi.authn.service_account import ServiceAccountTokens
from kapi.authn.tokens import Tokens
from kapi.authn.user import User
from kapi.authz.node import NodeAuthorizer
from kapi.authz.rbac import Rbac
from kapi.authz.union import Attributes
from kapi.flow.fairness import Fairness
from kapi.server.requestinfo import parse
from kapi.storage.base import Versioned
from kapi.storage.cache import Cache
from kapi.storage.codec import encode
from kapi.storage.memory import MemoryStorage
from kcore.env import Env

Obj = dict[str, Any]
GROUP = '/registry/rbac.authorization.k8s.io/'
ROLES, PODS = 1_000, 5_000
ISSUER = 'https://kubernetes.default.svc'
Call = Callable[[], Awaitable[object]]


def loaded(env: Env) -> Cache:
    cache = Cache(MemoryStorage(urlsplit('memory://'), env), env)

    def put(prefix: str, rest: str, **obj: Any) -> None:
        namespace, _, name = rest.rpartition('/')
        meta = {'name': name, 'uid': f'uid-{name}', **({'namespace': namespace} if namespace else {})}
        value = encode({'apiVersion': 'v1', 'kind': 'X', 'metadata': meta, **obj})
        cache.resource(prefix).load(Versioned(prefix + rest, value, 2))

    for i in range(ROLES):
        rule = {'verbs': ['get', 'list'], 'apiGroups': ['', 'apps'], 'resources': ['pods', 'deployments']}
        put(f'{GROUP}roles/', f'ns-{i}/r', rules=[rule])
        subject, ref = {'kind': 'User', 'name': f'user-{i}'}, {'kind': 'Role', 'name': 'r'}
        put(f'{GROUP}rolebindings/', f'ns-{i}/b', subjects=[subject], roleRef=ref)
    for i in range(PODS):
        volumes = [{'name': 'v', 'secret': {'secretName': f's-{i}'}}]
        put('/registry/pods/', f'default/p-{i:05}', spec={'nodeName': f'node-{i % 100}', 'volumes': volumes})
    put('/registry/serviceaccounts/', 'default/app')
    return cache


def cases(cache: Cache, env: Env) -> dict[str, Call]:
    rbac, node, fairness = Rbac(cache), NodeAuthorizer(cache), Fairness(cache, 600, now)
    tokens = Tokens(FixedKeys(key_set(new_key())), ISSUER, (ISSUER,), env)
    accounts = ServiceAccountTokens(tokens, cache, env)
    entry = cache.peek('/registry/serviceaccounts/default/app')
    assert entry is not None, 'loaded above'
    token = tokens.issue(entry.obj, (ISSUER,), 3600)
    reader = Attributes(User(f'user-{ROLES - 1}'), 'get', '', 'v1', 'pods', '', f'ns-{ROLES - 1}', 'p')
    agent = Attributes(User('system:node:node-7', ('system:nodes',)), 'get', '', 'v1', 'secrets', '', 'default', 's-7')
    info = parse('GET', '/api/v1/namespaces/default/pods', {})
    bob = User('bob', ('system:authenticated',))

    async def classify() -> object:
        return fairness.classify(info, bob)

    async def first_time() -> object:
        tokens._verified.clear()
        return await accounts.identify(token, (ISSUER,))

    return {
        f'rbac {ROLES} roles': lambda: rbac.decide(reader),
        f'node {PODS} pods': lambda: node.decide(agent),
        'token again': lambda: accounts.identify(token, (ISSUER,)),
        'token first time': first_time,
        'priority level': classify,
    }


async def per_second(call: Call, seconds: float, env: Env) -> float:
    await call()
    begun, count = env.clock.monotonic(), 0
    while (took := env.clock.monotonic() - begun) < seconds:
        for _ in range(100):
            await call()
        count += 100
    return count / took


def run(settings: Settings) -> None:
    env = Env.real(seed=1)
    cache = loaded(env)
    for case, call in cases(cache, env).items():
        figures = Figures()
        for _ in range(settings.runs):
            rate = asyncio.run(per_second(call, settings.seconds / 4, env))
            figures.add(decisions_per_s=rate, us_per_decision=1e6 / rate)
        emit('authz', case, figures)
