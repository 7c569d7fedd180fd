"""`kctl cluster status` and `kill`: who runs, who leads, and a signal for any of them.

Leadership is asked of those who know it: the store's members for Raft, the Leases in kube-system for the controller
manager and the scheduler.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable

import psutil

from kclient.api import Client
from kclient.errors import ClientError
from kclient.kubeconfig import load
from kcore.env import Env
from kcore.meta.gvk import LEASES
from kcore.meta.times import human_duration
from kctl.local.cluster import supervisors
from kctl.local.components import Component, Plan, name_of
from kctl.local.layout import ClusterError, Layout, join
from kctl.local.supervisor import running
from kctl.printers import aligned
from kstore.client import StoreClient
from kstore.errors import StoreError

ASK_TIMEOUT_S = 3.0
LEASE_NAMESPACE = 'kube-system'
LEASE_OF = {'manager-leader': 'kube-controller-manager', 'scheduler-leader': 'kube-scheduler'}


async def store_leader(layout: Layout, env: Env) -> str | None:
    """`store-2`, say; None when no member knows of a leader."""
    tls = Plan(layout, env).store_identity().client
    for n in range(1, layout.stores + 1):
        try:
            async with (
                asyncio.timeout(ASK_TIMEOUT_S),
                StoreClient([layout.address('store', n)], env, tls=tls, deadline_s=ASK_TIMEOUT_S) as client,
            ):
                leader = (await client.status())['leader']
        except (StoreError, TimeoutError, OSError):
            continue
        for number in range(1, layout.stores + 1):
            if leader == layout.member(number):
                return name_of('store', number)
    return None


async def lease_holder(layout: Layout, lease: str, env: Env) -> str | None:
    """The component that holds a leader election Lease; None when nobody does or the API server is away."""
    try:
        async with (
            asyncio.timeout(ASK_TIMEOUT_S),
            Client(load(layout.kubeconfig, env), env, user_agent='kctl') as client,
        ):
            spec = (await client.get(LEASES, lease, LEASE_NAMESPACE)).get('spec', {})
    except (ClientError, TimeoutError):
        return None
    holder = str(spec.get('holderIdentity') or '')
    # An identity may carry a suffix that tells two lives of a process apart: manager-1_4f2a….
    return holder.partition('_')[0] or None


async def show(layout: Layout, env: Env) -> None:
    """Print one row a component."""
    asked: list[Awaitable[str | None]] = [
        store_leader(layout, env),
        *(lease_holder(layout, lease, env) for lease in LEASE_OF.values()),
    ]
    store, manager, scheduler = await asyncio.gather(*asked)
    roles: dict[str | None, list[str]] = {store: ['leader']}
    for holder, what in ((manager, 'leads controllers'), (scheduler, 'leads scheduler')):
        roles.setdefault(holder, []).append(what)
    rows = [
        (*_row(layout, component, env), ', '.join(roles.get(component.name, [])))
        for component in Plan(layout, env).components()
    ]
    print(aligned([('NAME', 'STATE', 'PID', 'AGE', 'RSS', 'ADDRESS', 'ROLE'), *rows]))
    for name, process in supervisors(layout, env).items():
        print(f'\n{name} is process {process.pid}; logs are in {layout.data / "logs"}')


def _row(layout: Layout, component: Component, env: Env) -> tuple[str, str, str, str, str, str]:
    address = join(layout.address(component.role, component.number))
    process = running(layout, component.name, env)
    if process is None:
        return component.name, 'down', '', '', '', address
    with process.oneshot():
        age = env.clock.wall().timestamp() - process.create_time()
        state = 'stopped' if process.status() == psutil.STATUS_STOPPED else 'running'
        memory = f'{process.memory_info().rss / 1e6:.0f} MB'
    return component.name, state, str(process.pid), human_duration(age), memory, address


async def kill_component(layout: Layout, who: str, name: str, env: Env) -> str:
    """Send signal `name` to a component or to the present holder of a role. Raises ClusterError."""
    number = getattr(signal, f'SIG{name.upper().removeprefix("SIG")}', None)
    if number is None:
        raise ClusterError(f'--signal: there is no signal {name}.')
    target: str | None = who
    if who == 'store-leader':
        target = await store_leader(layout, env)
    elif who in LEASE_OF:
        target = await lease_holder(layout, LEASE_OF[who], env)
    if target is None:
        raise ClusterError(f'nobody is {who} at the moment.')
    process = running(layout, target, env)
    if process is None:
        names = ', '.join(c.name for c in Plan(layout, env).components())
        raise ClusterError(f'{target} does not run; there are {names}, store-leader, {", ".join(LEASE_OF)}.')
    process.send_signal(number)
    return f'{target} (process {process.pid}) got SIG{name.upper().removeprefix("SIG")}'
