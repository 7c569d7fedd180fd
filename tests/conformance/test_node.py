"""Upstream's conformance tests of the node whose containers can be plain processes, on a cluster of real processes.

Bodies are our own: what a test of upstream demands, said shorter. `scripts/conformance.py` counts the markers.
"""
# ruff: noqa: E501 — names of upstream's tests are kept whole, so that they can be searched for

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from kclient.errors import Invalid
from kcore.meta.gvk import CONFIGMAPS, NODES, PODS, SECRETS, SERVICES
from tests.conformance.pods import WITHIN_S, Obj, World, condition, ended, first, open_world
from tests.e2e.conftest import LocalCluster
from tests.hush import hushed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
conformance = pytest.mark.conformance


@pytest.fixture
async def world(cluster: LocalCluster) -> AsyncIterator[World]:
    async with open_world(cluster) as made:
        yield made


@conformance('[sig-node] Pods should get a host IP [NodeConformance] [Conformance]')
async def test_a_running_pod_says_where_its_host_is(world: World) -> None:
    await world.create('p', 'sleep', '1000')
    pod = await world.running('p')
    node = await world.client.get(NODES, pod['spec']['nodeName'])
    assert pod['status']['hostIP'] in {a['address'] for a in node['status']['addresses'] if a['type'] == 'InternalIP'}


# --- configuration from objects


@conformance('[sig-node] ConfigMap should be consumable via environment variable [NodeConformance] [Conformance]')
async def test_an_environment_variable_comes_from_a_key_of_a_config_map(world: World) -> None:
    await world.make(CONFIGMAPS, 'm', data={'data-1': 'value-1'})
    env = [{'name': 'X', 'valueFrom': {'configMapKeyRef': {'name': 'm', 'key': 'data-1'}}}]
    assert 'X=value-1\n' in await world.output('p', 'env', container={'env': env})


@conformance('[sig-node] ConfigMap should be consumable via the environment [NodeConformance] [Conformance]')
async def test_a_whole_config_map_becomes_the_environment(world: World) -> None:
    await world.make(CONFIGMAPS, 'm', data={'data_1': 'value-1', 'data_2': 'value-2'})
    sources = [{'configMapRef': {'name': 'm'}}, {'prefix': 'p_', 'configMapRef': {'name': 'm'}}]
    text = await world.output('p', 'env', container={'envFrom': sources})
    assert all(f'{k}=value-{k[-1]}\n' in text for k in ('data_1', 'data_2', 'p_data_1', 'p_data_2'))


@conformance('[sig-node] Secrets should be consumable from pods in env vars [NodeConformance] [Conformance]')
async def test_an_environment_variable_comes_from_a_key_of_a_secret(world: World) -> None:
    await world.make(SECRETS, 's', data={'k': base64.b64encode(hushed('hidden').encode()).decode()})
    env = [{'name': 'X', 'valueFrom': {'secretKeyRef': {'name': 's', 'key': 'k'}}}]
    assert f'X={hushed("hidden")}\n' in await world.output('p', 'env', container={'env': env})


@conformance('[sig-node] Secrets should be consumable via the environment [NodeConformance] [Conformance]')
async def test_a_whole_secret_becomes_the_environment(world: World) -> None:
    await world.make(SECRETS, 's', data={'k_1': base64.b64encode(hushed('v').encode()).decode()})
    sources = [{'secretRef': {'name': 's'}}, {'prefix': 'p_', 'secretRef': {'name': 's'}}]
    text = await world.output('p', 'env', container={'envFrom': sources})
    assert f'k_1={hushed("v")}\n' in text
    assert f'p_k_1={hushed("v")}\n' in text


DOWNWARD = '[sig-node] Downward API should provide '


@pytest.mark.parametrize(
    ('field', 'path'),
    [
        pytest.param(
            'metadata.uid', ('metadata', 'uid'),
            marks=conformance(DOWNWARD + 'pod UID as env vars [NodeConformance] [Conformance]'),
        ),
        pytest.param(
            'status.hostIP', ('status', 'hostIP'),
            marks=conformance(DOWNWARD + 'host IP as an env var [NodeConformance] [Conformance]'),
        ),
        pytest.param(
            'status.hostIPs', ('status', 'hostIP'),
            marks=conformance(DOWNWARD + 'hostIPs as an env var [NodeConformance] [Conformance]'),
        ),
        pytest.param(
            'metadata.name', ('metadata', 'name'),
            marks=conformance(DOWNWARD + 'pod name, namespace and IP address as env vars [NodeConformance] [Conformance]'),
        ),
        ('metadata.namespace', ('metadata', 'namespace')),
        ('status.podIP', ('status', 'podIP')),
    ],
)  # fmt: skip
async def test_a_pod_is_told_about_itself(world: World, field: str, path: tuple[str, str]) -> None:
    env = [{'name': 'X', 'valueFrom': {'fieldRef': {'fieldPath': field}}}]
    text = await world.output('p', 'env', container={'env': env})
    pod = await world.client.get(PODS, 'p', world.namespace)
    assert f'X={pod[path[0]][path[1]]}\n' in text


@pytest.mark.parametrize(
    ('resources', 'expected'),
    [
        pytest.param(
            {'requests': {'cpu': '250m', 'memory': '32Mi'}, 'limits': {'cpu': '1250m', 'memory': '64Mi'}},
            {'limits.cpu': '2', 'limits.memory': str(64 << 20), 'requests.cpu': '1', 'requests.memory': str(32 << 20)},
            marks=conformance(
                DOWNWARD + "container's limits.cpu/memory and requests.cpu/memory as env vars [NodeConformance] [Conformance]"
            ),
        ),
        pytest.param(
            {}, {'limits.cpu': '', 'limits.memory': ''},
            marks=conformance(
                DOWNWARD + 'default limits.cpu/memory from node allocatable [NodeConformance] [Conformance]'
            ),
        ),
    ],
)  # fmt: skip
async def test_a_container_is_told_its_resources(world: World, resources: Obj, expected: dict[str, str]) -> None:
    env = [{'name': r.replace('.', '_').upper(), 'valueFrom': {'resourceFieldRef': {'resource': r}}} for r in expected]
    text = await world.output('p', 'env', container={'env': env, 'resources': resources})
    got = dict(line.partition('=')[::2] for line in text.splitlines())
    for resource, value in expected.items():
        shown = got[resource.replace('.', '_').upper()]
        assert shown == value if value else int(shown) > 0


@conformance(
    '[sig-node] Variable Expansion should allow composing env vars into new env vars [NodeConformance] [Conformance]'
)
@conformance(
    "[sig-node] Variable Expansion should allow substituting values in a container's command [NodeConformance] [Conformance]"
)
@conformance(
    "[sig-node] Variable Expansion should allow substituting values in a container's args [NodeConformance] [Conformance]"
)
async def test_variables_are_expanded_in_env_command_and_args(world: World) -> None:
    env = [{'name': 'A', 'value': 'a'}, {'name': 'B', 'value': 'b'}, {'name': 'AB', 'value': '$(A);;$(B)'}]
    container = {'env': env, 'args': ["echo 'args $(B) $(AB) $$(A)'"]}
    assert await world.output('p', 'sh', '-c', container=container) == 'args b a;;b $(A)\n'
    assert await world.output('q', 'echo', '$(AB)', container={'env': env}) == 'a;;b\n'


@conformance(
    "[sig-node] Containers should be able to override the image's default command (container entrypoint) [NodeConformance] [Conformance]"
)
@conformance(
    "[sig-node] Containers should be able to override the image's default command and arguments [NodeConformance] [Conformance]"
)
async def test_command_and_args_replace_what_the_image_would_run(world: World) -> None:
    assert await world.output('p', image='agnhost', container={'args': ['entrypoint-tester', 'x']}) == (
        '[/agnhost entrypoint-tester x]\n'
    )
    assert await world.output('q', 'echo', 'other', image='agnhost') == 'other\n'
    assert await world.output('r', 'echo', image='agnhost', container={'args': ['a', 'b']}) == 'a b\n'


@conformance('[sig-node] Pods should contain environment variables for services [NodeConformance] [Conformance]')
async def test_services_are_announced_in_the_environment(world: World) -> None:
    service = await world.make(SERVICES, 'foo-svc', spec={'ports': [{'port': 8765, 'targetPort': 8080}]})
    ip = service['spec']['clusterIP']
    text = ''
    async with asyncio.timeout(WITHIN_S):
        for n in range(100):  # the node hears of Services from a watch
            text = await world.output(f'p{n}', 'env')
            if 'FOO_SVC' in text:
                break
    assert f'FOO_SVC_SERVICE_HOST={ip}\n' in text
    assert 'FOO_SVC_SERVICE_PORT=8765\n' in text
    assert f'FOO_SVC_PORT_8765_TCP=tcp://{ip}:8765\n' in text


# --- ends


BLACKBOX = '[sig-node] Container Runtime blackbox test on terminated container should report termination message '


@pytest.mark.parametrize(
    ('script', 'policy', 'phase', 'message'),
    [
        pytest.param(
            'printf DONE; exit 1', 'FallbackToLogsOnError', 'Failed', 'DONE',
            marks=conformance(
                BLACKBOX + 'from log output if TerminationMessagePolicy FallbackToLogsOnError is set [NodeConformance] [Conformance]'
            ),
        ),
        pytest.param(
            'printf OK > $KUBELING_TERMINATION_LOG', 'FallbackToLogsOnError', 'Succeeded', 'OK',
            marks=conformance(
                BLACKBOX + 'from file when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set [NodeConformance] [Conformance]'
            ),
        ),
        pytest.param(
            'printf OK > /dev/termination-log', 'File', 'Succeeded', 'OK',
        ),
        pytest.param(
            'printf DONE', 'FallbackToLogsOnError', 'Succeeded', None,
            marks=conformance(
                BLACKBOX + 'as empty when pod succeeds and TerminationMessagePolicy FallbackToLogsOnError is set [NodeConformance] [Conformance]'
            ),
        ),
    ],
)  # fmt: skip
async def test_a_container_leaves_its_last_words(
    world: World, script: str, policy: str, phase: str, message: str | None
) -> None:
    await world.create('p', 'sh', '-c', script, container={'terminationMessagePolicy': policy})
    assert ended(await world.phase('p', phase)).get('message') == message


@conformance(
    '[sig-node] Container Runtime blackbox test when starting a container that exits should run with the expected status [NodeConformance] [Conformance]'
)
@pytest.mark.parametrize(
    ('policy', 'phase', 'restarts'), [('Always', 'Running', 2), ('OnFailure', 'Succeeded', 1), ('Never', 'Failed', 0)]
)
async def test_restart_policies_lead_to_their_phases(world: World, policy: str, phase: str, restarts: int) -> None:
    mounts = {'volumeMounts': [{'name': 'v', 'mountPath': '/restart-count'}]}
    script = (  # fails once; under Always it then runs on after a second failure
        'n=$(cat /restart-count/n 2>/dev/null || echo 0); echo $((n+1)) > /restart-count/n; '
        f'[ {policy} = Always ] && [ $n -ge 1 ] && exec sleep 1000; [ $n -ge 1 ] && exit 0; exit 1'
    )
    volumes = [{'name': 'v', 'emptyDir': {}}]
    await world.create('p', 'sh', '-c', script, container=mounts, volumes=volumes, restartPolicy=policy)
    wanted = min(restarts, 1)
    pod = await world.until('p', lambda p: p['status'].get('phase') == phase and first(p)['restartCount'] >= wanted)
    assert first(pod)['restartCount'] == wanted
    assert first(await world.running('p'))['ready'] is True if policy == 'Always' else not first(pod)['ready']


@conformance(
    '[sig-node] Kubelet when scheduling a busybox command in a pod should print the output to logs [NodeConformance] [Conformance]'
)
async def test_output_is_in_the_log(world: World) -> None:
    assert await world.output('p', 'echo', 'Hello World') == 'Hello World\n'


@conformance(
    '[sig-node] Kubelet when scheduling a busybox command that always fails in a pod should have an terminated reason [NodeConformance] [Conformance]'
)
@conformance(
    '[sig-node] Kubelet when scheduling a busybox command that always fails in a pod should be possible to delete [NodeConformance] [Conformance]'
)
async def test_a_failing_pod_has_a_reason_and_can_be_deleted(world: World) -> None:
    await world.create('p', 'false', restartPolicy='Always')
    pod = await world.until('p', lambda p: ended(p) or (first(p).get('lastState') or {}).get('terminated'))
    last = ended(pod) or first(pod)['lastState']['terminated']
    assert (last['exitCode'], last['reason']) == (1, 'Error')
    await world.delete('p')


@conformance('[sig-node] Pods should be submitted and removed [NodeConformance] [Conformance]')
async def test_a_pod_comes_and_goes(world: World) -> None:
    await world.create('p', 'sleep', '1000', terminationGracePeriodSeconds=30)
    await world.running('p')
    await world.client.delete(PODS, 'p', world.namespace, grace_period_s=30)
    pod = await world.client.get(PODS, 'p', world.namespace)
    assert pod['metadata']['deletionGracePeriodSeconds'] == 30
    await world.delete('p')


@conformance('[sig-node] Pods should allow activeDeadlineSeconds to be updated [NodeConformance] [Conformance]')
async def test_a_deadline_that_is_moved_closer_ends_the_pod(world: World) -> None:
    await world.create('p', 'sleep', '1000', activeDeadlineSeconds=1000)
    await world.running('p')
    await world.client.patch(PODS, 'p', {'spec': {'activeDeadlineSeconds': 1}}, world.namespace)
    assert (await world.phase('p', 'Failed'))['status']['reason'] == 'DeadlineExceeded'


# --- init containers


def inits(*scripts: str) -> list[Obj]:
    return [{'name': f'init{n}', 'image': 'busybox', 'command': ['sh', '-c', s]} for n, s in enumerate(scripts, 1)]


@pytest.mark.parametrize(
    'policy',
    [
        pytest.param(
            'Always',
            marks=conformance('[sig-node] InitContainer [NodeConformance] should invoke init containers on a RestartAlways pod [Conformance]'),
        ),
        pytest.param(
            'Never',
            marks=conformance('[sig-node] InitContainer [NodeConformance] should invoke init containers on a RestartNever pod [Conformance]'),
        ),
    ],
)  # fmt: skip
async def test_init_containers_run_to_their_end_first(world: World, policy: str) -> None:
    await world.create('p', 'sleep', '0.2', restartPolicy=policy, initContainers=inits('true', 'true'))
    pod = await world.until('p', lambda p: condition(p, 'Initialized') == 'True' and first(p).get('containerID'))
    codes = [s['state']['terminated']['exitCode'] for s in pod['status']['initContainerStatuses']]
    assert codes == [0, 0]
    assert all(s['ready'] for s in pod['status']['initContainerStatuses'])


@conformance(
    '[sig-node] InitContainer [NodeConformance] should not start app containers and fail the pod if init containers fail on a RestartNever pod [Conformance]'
)
async def test_a_failing_init_container_fails_a_pod_that_never_restarts(world: World) -> None:
    await world.create('p', 'sleep', '1000', initContainers=inits('true', 'false'))
    pod = await world.phase('p', 'Failed')
    assert 'PodInitializing' in json.dumps(first(pod)['state'])
    assert condition(pod, 'Initialized') == 'False'


@conformance(
    '[sig-node] InitContainer [NodeConformance] should not start app containers if init containers fail on a RestartAlways pod [Conformance]'
)
async def test_a_failing_init_container_is_tried_again(world: World) -> None:
    await world.create('p', 'sleep', '1000', restartPolicy='Always', initContainers=inits('false', 'true'))
    pod = await world.until('p', lambda p: (p['status'].get('initContainerStatuses') or [{}])[0].get('restartCount'))
    assert pod['status']['phase'] == 'Pending'
    assert 'waiting' in first(pod)['state']
    assert 'waiting' in pod['status']['initContainerStatuses'][1]['state']


# --- hooks and probes


LISTENER = {'image': 'agnhost', 'args': ['netexec', '--http-port=8080']}
HOOKS = '[sig-node] Container Lifecycle Hook when create a pod with lifecycle hook should execute '


@pytest.mark.parametrize(
    ('when', 'how'),
    [
        pytest.param(w, h, marks=conformance(f'{HOOKS}{w.lower()} {h} hook properly [NodeConformance] [Conformance]'))
        for w in ('postStart', 'preStop')
        for h in ('exec', 'http')
    ],
)
async def test_lifecycle_hooks_run(world: World, when: str, how: str, tmp_path: Path) -> None:
    await world.create('listener', container=LISTENER)
    address = (await world.running('listener'))['status']['podIP']
    await until_serves(f'http://{address}:8080/')
    told = tmp_path / 'told'
    hook: Obj = {'exec': {'command': ['sh', '-c', f'echo yes > {told}']}}
    if how == 'http':
        hook = {'httpGet': {'host': address, 'port': 8080, 'path': f'/echo?msg={when}'}}
    await world.create('p', 'sleep', '1000', terminationGracePeriodSeconds=15, container={'lifecycle': {when: hook}})
    await world.running('p')
    if when == 'preStop':
        assert not told.exists()
        await world.delete('p')
    async with asyncio.timeout(WITHIN_S):
        while not (told.exists() if how == 'exec' else f'msg={when}' in await world.logs('listener')):
            await asyncio.sleep(0.05)


@conformance('[sig-node] PreStop should call prestop when killing a pod [Conformance]')
async def test_prestop_comes_before_the_signal(world: World, tmp_path: Path) -> None:
    order = tmp_path / 'order'
    script = f'trap "echo signal >> {order}; exit 0" TERM; sleep 1000 & wait'
    hook = {'preStop': {'exec': {'command': ['sh', '-c', f'echo hook >> {order}']}}}
    await world.create('p', 'sh', '-c', script, terminationGracePeriodSeconds=20, container={'lifecycle': hook})
    await world.running('p')
    await world.delete('p')
    assert order.read_text() == 'hook\nsignal\n'


async def until_serves(url: str) -> None:
    async with asyncio.timeout(WITHIN_S), aiohttp.ClientSession() as http:
        while True:
            try:
                async with http.get(url):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)


QUICK = {'periodSeconds': 1, 'failureThreshold': 1, 'timeoutSeconds': 5}
PROBING = '[sig-node] Probing container '
LIVE: dict[str, tuple[Obj, list[str], Obj]] = {
    'exec "cat /tmp/health"': ({'exec': {'command': ['cat', 'health']}}, ['sh', '-c', 'echo ok > health; sleep {s}; rm health; sleep 1000'], {}),
    '/healthz http': ({'httpGet': {'path': '/healthz', 'port': 8080}}, [], {'image': 'agnhost', 'args': ['{http}']}),
    'GRPC': ({'grpc': {'port': 5000}}, [], {'image': 'agnhost', 'args': ['grpc-health-checking', '--delay-unhealthy-sec={grpc}']}),
    'tcp:8080': ({'tcpSocket': {'port': 8080}}, [], {'image': 'agnhost', 'args': ['netexec', '--http-port=8080']}),
}  # fmt: skip


def live(kind: str, *, fails: bool) -> Obj:
    probe, command, rest = LIVE[kind]
    words = {
        '{s}': '2' if fails else '1000',
        '{grpc}': '3' if fails else '-1',
        '{http}': 'liveness' if fails else 'netexec',
    }

    def fill(text: str) -> str:
        for k, v in words.items():
            text = text.replace(k, v)
        return text

    container: Obj = {
        'livenessProbe': {**probe, **QUICK, 'initialDelaySeconds': 1, 'failureThreshold': 3 if not fails else 1},
        **rest,
    }
    if command:
        container['command'] = [fill(a) for a in command]
    if rest:
        container['args'] = [fill(a) for a in rest['args']]
    return container


@pytest.mark.parametrize(
    'kind',
    [
        pytest.param('/healthz http', marks=conformance(PROBING + 'should be restarted with a /healthz http liveness probe [NodeConformance] [Conformance]')),
        pytest.param('GRPC', marks=conformance(PROBING + 'should be restarted with a GRPC liveness probe [NodeConformance] [Conformance]')),
        pytest.param('exec "cat /tmp/health"', marks=conformance(PROBING + 'should be restarted with a exec "cat /tmp/health" liveness probe [NodeConformance] [Conformance]')),
    ],
)  # fmt: skip
async def test_a_failed_liveness_probe_restarts(world: World, kind: str) -> None:
    await world.create('p', container=live(kind, fails=True), restartPolicy='Always')
    pod = await world.until('p', lambda p: first(p).get('restartCount', 0) >= 1)
    assert first(pod)['lastState']['terminated']['exitCode'] != 0 or kind != 'exec "cat /tmp/health"'


@pytest.mark.parametrize(
    'kind',
    [
        pytest.param(kind, marks=conformance(f'{PROBING}should *not* be restarted with a {kind} liveness probe [NodeConformance] [Conformance]'))
        for kind in LIVE
    ],
)  # fmt: skip
async def test_a_passing_liveness_probe_restarts_nothing(world: World, kind: str) -> None:
    await world.create('p', container=live(kind, fails=False), restartPolicy='Always')
    await world.running('p')
    # A second container of the same kind that is condemned after the first proves that time enough has passed.
    condemned = {'exec': {'command': ['false']}, **QUICK, 'initialDelaySeconds': 4}
    await world.create('q', 'sleep', '1000', container={'livenessProbe': condemned}, restartPolicy='Always')
    await world.until('q', lambda p: first(p).get('restartCount', 0) >= 1)
    assert first(await world.client.get(PODS, 'p', world.namespace))['restartCount'] == 0


@conformance(PROBING + 'should have monotonically increasing restart count [NodeConformance] [Conformance]')
async def test_restarts_are_counted_upwards(world: World) -> None:
    await world.create(
        'p', 'sleep', '1000', container={'livenessProbe': {'exec': {'command': ['false']}, **QUICK}}, restartPolicy='Always'
    )  # fmt: skip
    counts = [0]
    async with asyncio.timeout(WITHIN_S):
        async for pod in world.states('p'):
            counts.append(first(pod).get('restartCount', 0))
            assert counts[-1] >= counts[-2]
            if counts[-1] >= 2:
                return


@conformance(
    PROBING
    + 'with readiness probe should not be ready before initial delay and never restart [NodeConformance] [Conformance]'
)
async def test_a_container_is_not_ready_before_its_delay(world: World) -> None:
    probe = {'exec': {'command': ['true']}, 'initialDelaySeconds': 3, **QUICK}
    await world.create('p', 'sleep', '1000', container={'readinessProbe': probe}, restartPolicy='Always')
    pod = await world.until('p', lambda p: condition(p, 'Ready') == 'True')
    since = next(c for c in pod['status']['conditions'] if c['type'] == 'Ready')['lastTransitionTime']
    started = first(pod)['state']['running']['startedAt']
    assert int(since[-3:-1]) != int(started[-3:-1])
    assert first(pod)['restartCount'] == 0


@conformance(
    PROBING + 'with readiness probe that fails should never be ready and never restart [NodeConformance] [Conformance]'
)
async def test_a_failing_readiness_probe_restarts_nothing(world: World) -> None:
    failing = {'readinessProbe': {'exec': {'command': ['false']}, **QUICK}}
    await world.create('p', 'sleep', '1000', container=failing, restartPolicy='Always')
    await world.running('p')
    probe = {'exec': {'command': ['true']}, 'initialDelaySeconds': 4, **QUICK}
    await world.create('q', 'sleep', '1000', container={'readinessProbe': probe})
    await world.until('q', lambda p: condition(p, 'Ready') == 'True')
    pod = await world.client.get(PODS, 'p', world.namespace)
    assert condition(pod, 'Ready') == 'False'
    assert first(pod)['restartCount'] == 0


# --- ephemeral containers, streams, security


@conformance(
    '[sig-node] Ephemeral Containers [NodeConformance] will start an ephemeral container in an existing pod [Conformance]'
)
@conformance(
    '[sig-node] Ephemeral Containers [NodeConformance] should update the ephemeral containers in an existing pod [Conformance]'
)
async def test_a_debugger_is_put_into_a_running_pod(world: World) -> None:
    await world.create('p', 'sleep', '1000')
    await world.running('p')
    debugger = {'name': 'debugger', 'image': 'busybox', 'command': ['sh', '-c', 'echo polo; sleep 1000']}
    patch = {'spec': {'ephemeralContainers': [debugger]}}
    await world.client.patch(PODS, 'p', patch, world.namespace, kind='strategic', subresource='ephemeralcontainers')
    pod = await world.until(
        'p', lambda p: 'running' in ((p['status'].get('ephemeralContainerStatuses') or [{}])[0].get('state') or {})
    )
    assert first(pod)['restartCount'] == 0
    assert 'polo' in await world.logs('p', container='debugger')


async def channels(world: World, path: str, query: list[tuple[str, str]], protocol: str) -> tuple[str, bytes]:
    tls = world.client.config.ssl_context()
    url = f'{world.client.config.servers[0]}/api/v1/namespaces/{world.namespace}/pods/{path}'
    got = b''
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as http,
        http.ws_connect(url, params=query, protocols=[protocol]) as ws,
    ):
        async for message in ws:
            data = message.data if isinstance(message.data, bytes) else message.data.encode()
            got += data if protocol == 'binary.k8s.io' else data[1:] if data[:1] == b'\x01' else b''
        return ws.protocol or '', got


@conformance('[sig-node] Pods should support remote command execution over websockets [NodeConformance] [Conformance]')
async def test_commands_run_over_websockets(world: World) -> None:
    await world.create('p', 'sleep', '1000')
    await world.running('p')
    query = [
        ('stderr', '1'),
        ('stdout', '1'),
        ('container', 'c'),
        ('command', 'echo'),
        ('command', 'remote execution test'),
    ]
    assert await channels(world, 'p/exec', query, 'channel.k8s.io') == ('channel.k8s.io', b'remote execution test\n')


@conformance(
    '[sig-node] Pods should support retrieving logs from the container over websockets [NodeConformance] [Conformance]'
)
async def test_logs_come_over_websockets(world: World) -> None:
    await world.output('p', 'echo', 'container is alive')
    got = await channels(world, 'p/log', [('container', 'c')], 'binary.k8s.io')
    assert got == ('binary.k8s.io', b'container is alive\n')


@conformance(
    '[sig-node] Security Context When creating a pod with readOnlyRootFilesystem should run the container with writable rootfs when readOnlyRootFilesystem=false [NodeConformance] [Conformance]'
)
async def test_the_root_file_system_is_writable_unless_it_is_said_otherwise(world: World) -> None:
    script = 'touch here && echo written'
    security = {'securityContext': {'readOnlyRootFilesystem': False}}
    assert await world.output('p', 'sh', '-c', script, container=security) == 'written\n'


@conformance(
    '[sig-node] Kubelet when scheduling a read only busybox container should not write to root filesystem [LinuxOnly] [NodeConformance] [Conformance]'
)
async def test_a_read_only_root_file_system_is_read_only(world: World) -> None:
    security = {'securityContext': {'readOnlyRootFilesystem': True}}
    script = 'echo hello > /kubeling-probe-file; echo checked'
    text = await world.output('p', 'sh', '-c', script, container=security)
    assert 'Read-only file system' in text or 'read-only file system' in text.lower()


@conformance(
    '[sig-node] Sysctls [LinuxOnly] [NodeConformance] should reject invalid sysctls [MinimumKubeletVersion:1.21] [Conformance]'
)
async def test_sysctls_that_are_no_names_are_refused(world: World) -> None:
    sysctls = [
        {'name': 'foo-', 'value': 'bar'},
        {'name': 'kernel.shmmax', 'value': '1'},
        {'name': 'bar..', 'value': '42'},
    ]
    with pytest.raises(Invalid, match=r'Invalid value: "foo-"(?s:.)*Invalid value: "bar\.\."') as refused:
        await world.create('p', 'true', securityContext={'sysctls': sysctls})
    assert 'kernel.shmmax' not in str(refused.value)


USERS = '[sig-node] Security Context '


@pytest.mark.parametrize(
    ('pod', 'container', 'expected'),
    [
        pytest.param({}, {'runAsUser': 65534}, '65534 ', marks=conformance(
            USERS + 'When creating a container with runAsUser should run the container with uid 65534 [LinuxOnly] [NodeConformance] [Conformance]')),
        pytest.param({'runAsUser': 1001, 'runAsGroup': 2002}, {}, '1001 2002', marks=conformance(
            USERS + 'should support pod.Spec.SecurityContext.RunAsUser And pod.Spec.SecurityContext.RunAsGroup [LinuxOnly] [Conformance]')),
        pytest.param({'runAsUser': 1}, {'runAsUser': 1001, 'runAsGroup': 2002}, '1001 2002', marks=conformance(
            USERS + 'should support container.SecurityContext.RunAsUser And container.SecurityContext.RunAsGroup [LinuxOnly] [Conformance]')),
    ],
)  # fmt: skip
@pytest.mark.as_root
async def test_a_container_runs_as_the_user_it_names(world: World, pod: Obj, container: Obj, expected: str) -> None:
    spec = {'securityContext': pod, 'container': {'securityContext': container}}
    text = await world.output('p', 'sh', '-c', 'echo $(id -u) $(id -g)', **spec)
    assert text.startswith(expected)
