"""A leader that was stopped past its lease must not act when it wakes: real processes, SIGSTOP, SIGCONT, kill."""

from __future__ import annotations

import asyncio
import signal
import sys

import pytest
import yaml


@pytest.fixture
async def manager(fake, tmp_path):
    path = tmp_path / 'kubeconfig'
    path.write_text(yaml.safe_dump({
        'clusters': [{'name': 'k', 'cluster': {'server': fake.url}}], 'users': [{'name': 'u', 'user': {}}],
        'contexts': [{'name': 'k', 'context': {'cluster': 'k', 'user': 'u'}}], 'current-context': 'k',
    }))  # fmt: skip
    started = []

    async def start(identity: str) -> asyncio.subprocess.Process:
        lease = ('--lease-duration-s', '2', '--renew-deadline-s', '1.2', '--retry-period-s', '0.2')
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            '-m',
            'kcontrol',
            '--kubeconfig',
            str(path),
            '--identity',
            identity,
            '--no-scheduler',
            *lease,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.e2e
async def test_a_leader_that_slept_past_its_lease_wakes_up_powerless(fake, manager, until):
    def holder() -> str:
        lease = fake.one('leases', 'kube-controller-manager', 'kube-system')
        return lease['spec']['holderIdentity'] if lease else ''

    def acted(identity: str) -> list:
        return [a for a in fake.attempts if a[0].endswith(f'/{identity}') and '/leases' not in a[2]]

    first = await manager('first')
    await until(lambda: fake.one('serviceaccounts', 'default', 'default'))
    second = await manager('second')
    first.send_signal(signal.SIGSTOP)
    await until(lambda: holder() == 'second')
    fake.put('namespaces', {'metadata': {'name': 'later'}, 'spec': {'finalizers': ['kubernetes']}})
    await until(lambda: fake.one('serviceaccounts', 'default', 'later'))
    before = len(acted('first'))
    # What the sleeper would do with its stale view: the account is missing again when it looks.
    for name in ('a', 'b', 'c'):
        fake.put('namespaces', {'metadata': {'name': name}, 'spec': {'finalizers': ['kubernetes']}})
    first.send_signal(signal.SIGCONT)
    await until(lambda: fake.one('serviceaccounts', 'default', 'c'))
    tries = len(fake.attempts)
    second.kill()
    await until(lambda: holder() == 'first')
    fake.put('namespaces', {'metadata': {'name': 'last'}, 'spec': {'finalizers': ['kubernetes']}})
    await until(lambda: fake.one('serviceaccounts', 'default', 'last'))
    took_over = next(i for i, a in enumerate(fake.attempts) if i >= tries and a[0].endswith('/first'))
    assert len([a for a in fake.attempts[:took_over] if a in acted('first')]) == before
    first.terminate()
    assert await first.wait() == 0
    assert holder() == ''
