"""Specs that cannot work: each pod gets the reason and the events that people know from Kubernetes.

All pods are made at once on one node; each row then looks at its own.
"""

# ruff: noqa: E501 — a table's rows

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from kclient.api import Client
from kcore.env import Env
from kcore.meta.gvk import CONFIGMAPS, EVENTS, PODS, RUNTIMECLASSES, SECRETS
from tests.hush import hushed
from tests.knode.agent_world import World, connected, pod

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180), pytest.mark.xdist_group('garbage')]
WITHIN_S = 90.0
MOUNT = {'volumeMounts': [{'name': 'v', 'mountPath': '/v'}]}


@dataclass(frozen=True)
class Row:
    what: str
    reason: str
    """Of the container's waiting state, or of its termination."""
    says: str
    """Part of that state's message, or of an event's when the state has none."""
    events: tuple[str, ...]
    container: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    phase: str = ''
    """Empty: Pending, or Running when a container has ended."""

    @property
    def name(self) -> str:
        return self.what.replace(' ', '-').replace('_', '-').lower()


def starts(what: str, says: str, **container: Any) -> Row:
    """A process that cannot be made: StartError, exit code 128."""
    return Row(what, 'StartError', says, ('Created', 'Failed', 'BackOff'), container, exit_code=128)


def mounts(what: str, says: str, volume: dict[str, Any]) -> Row:
    spec = {'volumes': [{'name': 'v', **volume}]}
    return Row(
        what, 'ContainerCreating', f'MountVolume.SetUp failed for volume "v" : {says}', ('FailedMount',), MOUNT, spec
    )


def config(what: str, says: str, *env: dict[str, Any], **more: Any) -> Row:
    return Row(what, 'CreateContainerConfigError', says, ('Failed',), {'env': list(env), **more})


def ref(kind: str, name: str, key: str) -> dict[str, Any]:
    return {'name': 'X', 'valueFrom': {kind: {'name': name, 'key': key}}}


def runs(what: str, says: str, *events: str, **container: Any) -> Row:
    """A pod that runs, and of which something is told all the same."""
    return Row(what, '', says, events, container, phase='Running')


SHARED = {'volumes': [{'name': 'v', 'hostPath': {'path': '{shared}'}}]}
QUICK = {'periodSeconds': 1, 'failureThreshold': 2}
HUGE = [{'prefix': f'p{n}_', 'configMapRef': {'name': 'huge'}} for n in range(11)]
ROWS = [
    starts('missing binary', 'exec: "nosuch": executable file not found in $PATH', command=['nosuch']),
    starts('empty command', 'exec: "": executable file not found in $PATH', command=['']),
    starts('missing file', 'exec: "/no/such": stat /no/such: no such file or directory', command=['/no/such']),
    starts('directory as command', 'exec: "/tmp": is a directory', command=['/tmp']),
    starts('file without x', 'exec: "/etc/passwd": permission denied', command=['/etc/passwd']),
    starts('file that is no program', 'exec {shared}/garbage: exec format error', command=['{shared}/garbage']),
    starts('argument with a zero byte', 'invalid argument', command=['sh', '-c', 'echo a\0b']),
    starts('huge environment', 'argument list too long', command=['true'], envFrom=HUGE),
    starts('bad working directory', 'chdir to cwd ("/no/such") failed: no such file or directory', workingDir='/no/such'),
    starts('file as working directory', 'chdir to cwd ("/etc/passwd") failed: not a directory', workingDir='/etc/passwd'),
    starts('file mounted over a directory', 'mount path "/etc" is a directory',
           volumeMounts=[{'name': 'v', 'mountPath': '/etc', 'subPath': 'k'}]),
    starts('mount over the root', 'mount path "/" is the root of the container',
           volumeMounts=[{'name': 'v', 'mountPath': '/'}]),
    starts('mount inside of proc', '"/proc/x" cannot be mounted because it is inside /proc',
           volumeMounts=[{'name': 'v', 'mountPath': '/proc/x'}]),
    config('resources of a container that is not there', 'container none not found',
           {'name': 'X', 'valueFrom': {'resourceFieldRef': {'containerName': 'none', 'resource': 'limits.cpu'}}}),
    config('missing config map', 'configmap "none" not found', ref('configMapKeyRef', 'none', 'k')),
    config('missing config map key', "couldn't find key none in ConfigMap default/m", ref('configMapKeyRef', 'm', 'none')),
    config('missing secret', 'secret "none" not found', ref('secretKeyRef', 'none', 'k')),
    config('missing secret key', "couldn't find key none in Secret default/s", ref('secretKeyRef', 's', 'none')),
    config('missing env source', 'configmap "none" not found', envFrom=[{'configMapRef': {'name': 'none'}}]),
    config('root where it must not be', 'container has runAsNonRoot and image will run as root',
           securityContext={'runAsNonRoot': True}),
    config('sub path that leads out', 'failed to prepare subPath for volumeMount "v" of container "c"',
           volumeMounts=[{'name': 'v', 'mountPath': '/v', 'subPath': 'out/x'}]),
    config('sub path without a value', 'missing value for NONE',
           volumeMounts=[{'name': 'v', 'mountPath': '/v', 'subPathExpr': '$(NONE)'}]),
    Row('unknown capability', 'CreateContainerError', 'unknown capability "CAP_NONE"', ('Failed',),
        {'securityContext': {'capabilities': {'add': ['NONE']}}}),
    Row('named seccomp profile', 'CreateContainerError', 'applies no seccomp profiles', ('Failed',),
        {'securityContext': {'seccompProfile': {'type': 'Localhost', 'localhostProfile': 'x'}}}),
    mounts('missing secret in a volume', 'secret "none" not found', {'secret': {'secretName': 'none'}}),
    mounts('missing config map in a volume', 'configmap "none" not found', {'configMap': {'name': 'none'}}),
    mounts('missing key in a volume', 'configmap references non-existent config key: none',
           {'configMap': {'name': 'm', 'items': [{'key': 'none', 'path': 'x'}]}}),
    mounts('missing host directory', 'hostPath type check failed: /no/such is not a directory',
           {'hostPath': {'path': '/no/such', 'type': 'Directory'}}),
    mounts('host path below a file', '/etc/passwd/x: not a directory', {'hostPath': {'path': '/etc/passwd/x'}}),
    mounts('host file that is a directory', 'hostPath type check failed: /tmp is not a file',
           {'hostPath': {'path': '/tmp', 'type': 'File'}}),
    mounts('host socket that is none', 'hostPath type check failed: /etc/passwd is not a socket file',
           {'hostPath': {'path': '/etc/passwd', 'type': 'Socket'}}),
    mounts('volume type that is not here', 'volume type nfs is not supported', {'nfs': {'server': 'x', 'path': '/'}}),
    Row('unknown image', 'ImagePullBackOff', 'Back-off pulling image "nosuch:1": ErrImagePull: image "nosuch:1" not found', ('Pulling', 'Failed', 'BackOff'),
        {'image': 'nosuch:1'}),
    Row('unknown image that must be there', 'ErrImageNeverPull', 'is not present with pull policy of Never',
        ('ErrImageNeverPull', 'Failed'), {'image': 'nosuch:1', 'imagePullPolicy': 'Never'}),
    Row('no image name', 'InvalidImageName', "couldn't parse image name", ('InspectFailed', 'Failed'), {'image': 'Not An Image'}),
    Row('port in use', 'Error', 'Address already in use', ('Created', 'Started', 'BackOff'),
        {'image': 'agnhost', 'command': None, 'args': ['netexec', '--http-port=8080', '--udp-port=8080'],
         'terminationMessagePolicy': 'FallbackToLogsOnError'}, exit_code=1),
    Row('write to a read only volume', 'Error', 'Read-only file system', ('Started', 'BackOff'),
        {'command': ['sh', '-c', 'echo x > /v/x || exit 7'], 'terminationMessagePolicy': 'FallbackToLogsOnError',
         'volumeMounts': [{'name': 'v', 'mountPath': '/v', 'readOnly': True}]}, SHARED, exit_code=7),
    Row('runtime class without a runtime', 'ContainerCreating', 'no runtime for "gvisor" is configured',
        ('FailedCreatePodSandBox',), {}, {'runtimeClassName': 'strange'}),
    Row('host port of another pod', '', "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        ('NodePorts',), {'ports': [{'containerPort': 80, 'hostPort': 18099}]}, phase='Failed'),
    Row('more than there is', '', "Node didn't have enough resource: cpu, requested: 999000, used: ", ('OutOfcpu',),
        {'resources': {'requests': {'cpu': '999'}}}, phase='Failed'),
    runs('missing pull secret', 'Unable to retrieve some image pull secrets (none)', 'FailedToRetrieveImagePullSecret'),
    runs('probe of a port without a name', 'Readiness probe errored and resulted in unknown state: strconv.Atoi: parsing "web": invalid syntax',
         'Unhealthy', readinessProbe={'tcpSocket': {'port': 'web'}, **QUICK}),
    runs('probe that is no program', 'Liveness probe errored and resulted in unknown state: failed to exec in container',
         'Unhealthy', livenessProbe={'exec': {'command': ['nosuch']}, **QUICK}),
    Row('failing liveness probe', 'Error', 'Container c failed liveness probe, will be restarted', ('Unhealthy', 'Killing'),
        {'command': ['sh', '-c', 'exec sleep 1000'], 'livenessProbe': {'exec': {'command': ['false']}, **QUICK}}, exit_code=143),
    Row('deaf to its end', 'Error', 'Container c failed liveness probe, will be restarted', ('Unhealthy', 'Killing'),
        {'command': ['sh', '-c', 'trap "" TERM; while :; do sleep 1; done'],
         'livenessProbe': {'exec': {'command': ['false']}, **QUICK}}, exit_code=137),
    Row('killed by a signal', 'Error', '', ('Started', 'BackOff'), {'command': ['sh', '-c', 'kill -SEGV $$$$']}, exit_code=139),
    Row('failing postStart', 'Error', '', ('Started', 'FailedPostStartHook', 'Killing'),
        {'command': ['sh', '-c', 'sleep 1000'], 'lifecycle': {'postStart': {'exec': {'command': ['false']}}}}, exit_code=143),
]  # fmt: skip

AS_ROOT = {'unknown capability', 'root where it must not be'}
"""Rows that say something else to an agent that is not root."""


def able() -> list[Row]:
    return [r for r in ROWS if os.geteuid() == 0 or r.what not in AS_ROOT]


def made(row: Row) -> dict[str, Any]:
    p = pod(row.name, 'sleep', '1000')
    c = p['spec']['containers'][0]
    c.update(row.container)
    p['spec']['containers'][0] = {k: v for k, v in c.items() if v is not None}
    if 'volumeMounts' in c:
        p['spec']['volumes'] = [{'name': 'v', 'configMap': {'name': 'm'}}]
        if row.reason == 'CreateContainerConfigError':
            p['spec']['volumes'] = [{'name': 'v', 'hostPath': {'path': '{shared}'}}]
    if row.what == 'missing pull secret':
        p['spec']['imagePullSecrets'] = [{'name': 'none'}]
    if row.what == 'port in use':
        p['spec']['initContainers'] = [{**p['spec']['containers'][0], 'name': 'first', 'restartPolicy': 'Always'}]
    p['spec'].update(row.spec)
    return p


def state(p: dict[str, Any]) -> tuple[str, str, int | None]:
    """(reason, message, exit code) of the last end when there was one, else of the wait."""
    status = ((p.get('status') or {}).get('containerStatuses') or [{}])[0]
    ended = (status.get('lastState') or {}).get('terminated') or (status.get('state') or {}).get('terminated')
    shown = ended or (status.get('state') or {}).get('waiting') or {}
    return shown.get('reason', ''), shown.get('message', ''), (ended or {}).get('exitCode')


async def look(client: Client) -> dict[str, tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Pod and its events by name, once every row has what it expects or the time is over."""
    found: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
    try:
        async with asyncio.timeout(WITHIN_S):
            while not all(r.name in found and not missing(r, *found[r.name]) for r in able()):
                events = (await client.list(EVENTS, 'default')).items
                pods = (await client.list(PODS, 'default')).items
                found = {
                    p['metadata']['name']: (
                        p,
                        [e for e in events if e['involvedObject']['uid'] == p['metadata']['uid']],
                    )
                    for p in pods
                }
                await asyncio.sleep(0.2)
    except TimeoutError:
        pass
    return found


def missing(row: Row, p: dict[str, Any], events: list[dict[str, Any]]) -> str:
    """What is not as it should be; empty: nothing."""
    reason, message, code = state(p)
    told = ' '.join([message, *(e['message'] for e in events)])
    unheard = set(row.events) - {e['reason'] for e in events}
    said = all(part in told for part in row.says.split('{shared}'))
    if (reason, code) != (row.reason, row.exit_code) or not said or unheard:
        return f'{reason} {message!r} {code}, events {sorted((e["reason"], e["message"]) for e in events)}'
    return ''


async def run(root: Path) -> dict[str, tuple[dict[str, Any], list[dict[str, Any]]]]:
    world = World(root, Env.real())
    shared = root / 'shared'
    shared.mkdir()
    (shared / 'out').symlink_to('/')
    (shared / 'garbage').write_bytes(b'\x00\x01\x02 no program')
    for path in (*root.parents, root, shared, shared / 'garbage'):  # whoever the containers run as may go there
        if path.is_relative_to(root.parent.parent):
            path.chmod(path.stat().st_mode | 0o555)
    try:
        await world.start_api()
        await world.start_agent()
        async with connected(world) as client:
            await client.create(CONFIGMAPS, {'metadata': {'name': 'm', 'namespace': 'default'}, 'data': {'k': 'v'}})
            huge = {f'k{n}': 'x' * 100_000 for n in range(10)}
            await client.create(CONFIGMAPS, {'metadata': {'name': 'huge', 'namespace': 'default'}, 'data': huge})
            await client.create(
                SECRETS, {'metadata': {'name': 's', 'namespace': 'default'}, 'stringData': {'k': hushed('v')}}
            )
            await client.create(RUNTIMECLASSES, {'metadata': {'name': 'strange'}, 'handler': 'gvisor'})
            first = pod('first', 'sleep', '1000')
            first['spec']['containers'][0]['ports'] = [{'containerPort': 80, 'hostPort': 18099}]
            await client.create(PODS, first)
            for row in able():
                await client.create(PODS, orjson.loads(orjson.dumps(made(row)).replace(b'{shared}', bytes(shared))))
            found = await look(client)
            for name in ('first', *(row.name for row in able())):
                await client.delete(PODS, name, 'default')
            async with asyncio.timeout(WITHIN_S):
                while (await client.list(PODS, 'default')).items:
                    await asyncio.sleep(0.1)
            return found
    finally:
        await world.close()


@pytest.fixture(scope='module')
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], list[dict[str, Any]]]]:
    return asyncio.run(run(tmp_path_factory.mktemp('garbage')))


@pytest.mark.parametrize('row', ROWS, ids=lambda r: r.name)
def test_a_spec_that_cannot_work_says_why(found, row):
    if row not in able():
        pytest.skip('only an agent of root says so')
    p, events = found[row.name]
    assert not missing(row, p, events)
    assert p['status']['phase'] == (row.phase or ('Pending' if row.exit_code is None else 'Running'))
