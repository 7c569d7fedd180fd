"""Upstream's conformance tests of volumes, on real mounts of real processes.

Each row is one pod that runs to its end: what it prints is what upstream's test looks for in the pod's log. All rows
run at once when the first of them is asked for; a test then looks at its own.
"""
# ruff: noqa: E501 — names of upstream's tests are kept whole, so that they can be searched for

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from kcore.meta.gvk import CONFIGMAPS, SECRETS
from tests.conformance.pods import Obj, World, first, open_world
from tests.e2e.conftest import LocalCluster
from tests.hush import MARK, hushed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180), pytest.mark.xdist_group('node-volumes')]
conformance = pytest.mark.conformance

AT_ONCE = 24
USER = 1000
DATA = {'data-1': 'value-1', 'data-2': 'value-2', 'data-3': 'value-3'}
CPU, MEMORY = {'requests': {'cpu': '250m', 'memory': '32Mi'}, 'limits': {'cpu': '1250m', 'memory': '64Mi'}}, None


@dataclass(frozen=True)
class Row:
    name: str
    """Upstream's, without its tags."""
    volumes: dict[str, Obj]
    script: str
    prints: str
    """Empty: the row's test judges by itself."""
    container: Obj = field(default_factory=dict)
    spec: Obj = field(default_factory=dict)
    mounts: tuple[Obj, ...] = ()
    """Beside `/v/<volume>` for each volume."""

    @property
    def needs_root(self) -> bool:
        return 'securityContext' in self.spec


def as_user(group: int | None = None) -> Obj:
    return {'securityContext': {'runAsUser': USER} | ({} if group is None else {'fsGroup': group})}


def source(kind: str, name: str, mode: int | None = None, **rest: object) -> Obj:
    """A volume of one of the four kinds that show a ConfigMap or a Secret."""
    modes = {} if mode is None else {'defaultMode': mode}
    match kind:
        case 'ConfigMap':
            return {'configMap': {'name': name, **modes, **rest}}
        case 'Secrets':
            return {'secret': {'secretName': name, **modes, **rest}}
        case 'Projected configMap':
            return {'projected': {**modes, 'sources': [{'configMap': {'name': name, **rest}}]}}
    return {'projected': {**modes, 'sources': [{'secret': {'name': name, **rest}}]}}


def of_objects() -> Iterator[Row]:
    for kind in ('ConfigMap', 'Projected configMap', 'Secrets', 'Projected secret'):
        base = f'{kind} should be consumable from pods in volume'
        mapped = {'items': [{'key': 'data-2', 'path': 'path/to/data-2'}]}
        moded = {'items': [{'key': 'data-2', 'path': 'path/to/data-2', 'mode': 0o400}]}
        show, show_mapped = ('stat -Lc %a {0}; cat {0}'.format(f'/v/x/{p}') for p in ('data-1', 'path/to/data-2'))
        plain = {'x': source(kind, 'o')}
        mapping = {'x': source(kind, 'o', **mapped)}
        yield Row(base, plain, show, '644\nvalue-1')
        yield Row(f'{base} with defaultMode set', {'x': source(kind, 'o', 0o400)}, show, '400\nvalue-1')
        yield Row(f'{base} with mappings', mapping, show_mapped, '644\nvalue-2')
        word = 'Item mode' if 'onfigMap' in kind else 'Item Mode'
        yield Row(
            f'{base} with mappings and {word} set', {'x': source(kind, 'o', **moded)}, show_mapped, '400\nvalue-2'
        )
        both = {'x': source(kind, 'o'), 'y': source(kind, 'o')}
        where = 'volumes in the same pod' if 'onfigMap' in kind else 'volumes in a pod'
        yield Row(
            f'{kind} should be consumable in multiple {where}', both, 'cat /v/x/data-1 /v/y/data-1', 'value-1value-1'
        )
        if 'onfigMap' in kind:
            yield Row(f'{base} as non-root', plain, show, '644\nvalue-1', spec=as_user())
            yield Row(f'{base} with mappings as non-root', mapping, show_mapped, '644\nvalue-2', spec=as_user())
        else:
            grouped = {'x': source(kind, 'o', 0o440)}
            name = f'{base} as non-root with defaultMode and fsGroup set'
            yield Row(name, grouped, f'{show}; stat -Lc %g /v/x/data-1', '440\nvalue-11001', spec=as_user(1001))


def downward(projected: bool, *items: Obj, mode: int | None = None) -> Obj:
    modes = {} if mode is None else {'defaultMode': mode}
    if projected:
        return {'projected': {**modes, 'sources': [{'downwardAPI': {'items': list(items)}}]}}
    return {'downwardAPI': {**modes, 'items': list(items)}}


def of_the_pod() -> Iterator[Row]:
    for kind, projected in (('Downward API volume', False), ('Projected downwardAPI', True)):
        name = {'path': 'f', 'fieldRef': {'fieldPath': 'metadata.name'}}
        podname = {'x': downward(projected, name)}
        yield Row(f'{kind} should provide podname only', podname, 'cat /v/x/f; echo; hostname', '{pod}\n{pod}')
        mode = {'x': downward(projected, name, mode=0o400)}
        yield Row(f'{kind} should set DefaultMode on files', mode, 'stat -Lc %a /v/x/f', '400')
        item = {'x': downward(projected, {**name, 'mode': 0o400})}
        yield Row(f'{kind} should set mode on item file', item, 'stat -Lc %a /v/x/f', '400')
        for resource, divisor, prints in (
            ('limits.cpu', '1m', '1250'), ('limits.memory', '1Mi', '64'),
            ('requests.cpu', '1m', '250'), ('requests.memory', '1Mi', '32'),
        ):  # fmt: skip
            ref = {'containerName': 'c', 'resource': resource, 'divisor': divisor}
            what = f"container's {resource.split('.')[1]} {resource.split('.')[0].removesuffix('s')}"
            volume = {'x': downward(projected, {'path': 'f', 'resourceFieldRef': ref})}
            yield Row(f'{kind} should provide {what}', volume, 'cat /v/x/f', prints, {'resources': CPU})
        for resource in ('cpu', 'memory'):
            ref = {'containerName': 'c', 'resource': f'limits.{resource}'}
            volume = {'x': downward(projected, {'path': 'f', 'resourceFieldRef': ref})}
            what = f'node allocatable ({resource}) as default {resource} limit if the limit is not set'
            yield Row(f'{kind} should provide {what}', volume, '[ $(cat /v/x/f) -gt 0 ] && echo positive', 'positive')


def empty_directories() -> Iterator[Row]:
    for medium, short in (('', 'default'), ('Memory', 'tmpfs')):
        volume = {'x': {'emptyDir': {'medium': medium} if medium else {}}}
        kind = 'stat -f -c %T /v/x' if medium else 'true'
        shown = 'tmpfs\n' if medium else ''
        name = 'tmpfs' if medium else 'default medium'
        yield Row(f'EmptyDir volumes volume on {name} should have the correct mode', volume,
                  f'stat -c %a /v/x; {kind}', f'777\n{shown}')  # fmt: skip
        for user in ('root', 'non-root'):
            for mode in ('0644', '0666', '0777'):
                script = f'echo content > /v/x/f; chmod {mode} /v/x/f; stat -c %a /v/x/f; cat /v/x/f; stat -c %u /v/x/f; {kind}'
                owner = USER if user == 'non-root' else os.geteuid()
                prints = f'{mode[1:]}\ncontent\n{owner}\n{shown}'
                spec = as_user() if user == 'non-root' else {}
                yield Row(f'EmptyDir volumes should support ({user},{mode},{short})', volume, script, prints, spec=spec)


def wrapped() -> Iterator[Row]:
    yield Row('EmptyDir wrapper volumes should not conflict', {'x': source('Secrets', 'o'), 'y': source('ConfigMap', 'o')},
              'cat /v/x/data-1 /v/y/data-2', 'value-1value-2')  # fmt: skip
    many = {f'x{n}': source('ConfigMap', 'o') for n in range(50)}
    yield Row('EmptyDir wrapper volumes should not cause race condition when used for configmaps', many,
              'cat /v/x*/data-1 | wc -c', str(50 * len('value-1')))  # fmt: skip
    parts = [
        {'downwardAPI': {'items': [{'path': 'podname', 'fieldRef': {'fieldPath': 'metadata.name'}}]}},
        {'secret': {'name': 'o', 'items': [{'key': 'data-1', 'path': 'secret/data'}]}},
        {'configMap': {'name': 'o', 'items': [{'key': 'data-2', 'path': 'map/data'}]}},
    ]
    yield Row('Projected combined should project all components that make up the projection API',
              {'x': {'projected': {'sources': parts}}}, 'cd /v/x; cat podname secret/data map/data', '{pod}value-1value-2')  # fmt: skip
    binary = {'x': source('ConfigMap', 'binary')}
    yield Row('ConfigMap binary data should be reflected in volume', binary, 'od -An -tx1 /v/x/dump.bin; cat /v/x/text',
              ' de ca fe ba d0 fe ff\nvalue')  # fmt: skip
    yield Row('Secrets should be able to mount in a volume regardless of a different secret existing with same name in different namespace',
              {'x': source('Secrets', 'twin')}, 'cat /v/x/k', 'mine')  # fmt: skip


def sub_paths() -> Iterator[Row]:
    """A file of an atomic volume mounted by itself: it stays readable under its own name."""
    own = {'path': 'data-1', 'fieldRef': {'fieldPath': 'metadata.name'}}
    title = 'Subpath Atomic writer volumes should support subpaths with '
    script = 'for i in 1 2 3; do cat /sub/file || exit 1; done'
    mount = {'name': 'x', 'mountPath': '/sub/file', 'subPath': 'data-1'}
    for word, volume, prints in (
        ('configmap pod', source('ConfigMap', 'o'), 'value-1' * 3),
        ('secret pod', source('Secrets', 'o'), 'value-1' * 3),
        ('projected pod', source('Projected configMap', 'o'), 'value-1' * 3),
        ('downward pod', downward(False, own), '{pod}' * 3),
    ):
        yield Row(title + word, {'x': volume}, script, prints, mounts=(mount,))
    over = {**mount, 'mountPath': '/etc/passwd'}
    yield Row(f'{title}configmap pod with mountPath of existing file', {'x': source('ConfigMap', 'o')},
              'cat /etc/passwd', 'value-1', mounts=(over,))  # fmt: skip


ROWS = [*of_objects(), *of_the_pod(), *empty_directories(), *wrapped(), *sub_paths()]


async def outcome(world: World, row: Row, pod: str) -> str:
    """What the row's pod printed."""
    mounts = [{'name': n, 'mountPath': f'/v/{n}'} for n in row.volumes]
    container = {**row.container, 'volumeMounts': [*mounts, *row.mounts]}
    volumes = [{'name': n, **v} for n, v in row.volumes.items()]
    await world.create(pod, 'sh', '-c', row.script, container=container, volumes=volumes, **row.spec)
    done = await world.until(pod, lambda p: p['status'].get('phase') in {'Succeeded', 'Failed'})
    text = await world.logs(pod)
    assert done['status']['phase'] == 'Succeeded', (text, first(done)['state'])
    return text


async def run_all(cluster: LocalCluster) -> dict[str, str | BaseException]:
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(world: World, n: int, row: Row) -> str:
        async with limit:
            return await outcome(world, row, f'p{n}')

    async with open_world(cluster) as world, open_world(cluster) as other:
        secret = {k: base64.b64encode(hushed(v).encode()).decode() for k, v in DATA.items()}
        await world.make(CONFIGMAPS, 'o', data=DATA)
        await world.make(SECRETS, 'o', data=secret)
        await world.make(CONFIGMAPS, 'binary', data={'text': 'value'}, binaryData={'dump.bin': '3sr+utD+/w=='})
        await world.make(SECRETS, 'twin', stringData={'k': hushed('mine')})
        await other.make(SECRETS, 'twin', stringData={'k': hushed('theirs')})
        rows = [r for r in ROWS if not r.needs_root or os.geteuid() == 0]
        ends = await asyncio.gather(*(one(world, n, r) for n, r in enumerate(rows)), return_exceptions=True)
        return {r.name: e.replace(f'p{n}', '{pod}').replace(MARK, '') if isinstance(e, str) else e
                for n, (r, e) in enumerate(zip(rows, ends, strict=True))}  # fmt: skip


@pytest.fixture(scope='module')
def outcomes(cluster: LocalCluster) -> dict[str, str | BaseException]:
    return asyncio.run(run_all(cluster))


def marks(row: Row) -> list[pytest.MarkDecorator]:
    return [conformance(f'[sig-storage] {row.name}'), *([pytest.mark.as_root] if row.needs_root else ())]


@pytest.mark.parametrize('row', [pytest.param(r, id=r.name, marks=marks(r)) for r in ROWS])
def test_a_pod_finds_its_volumes_as_described(outcomes: dict[str, str | BaseException], row: Row) -> None:
    found = outcomes[row.name]
    if isinstance(found, BaseException):
        raise AssertionError(f'{type(found).__name__}: {found}') from found
    assert found.rstrip('\n') == row.prints.rstrip('\n')
