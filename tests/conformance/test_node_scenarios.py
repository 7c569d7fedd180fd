"""Upstream's conformance tests that need a running pod's isolation, its network or its account, on real processes."""
# ruff: noqa: E501 — names of upstream's tests are kept whole, so that they can be searched for

from __future__ import annotations

import asyncio
import base64
import json
from itertools import product
from typing import Any

import pytest

from kcore.meta.gvk import CONFIGMAPS, ENDPOINTS, PODS, SECRETS, SERVICEACCOUNTS, SERVICES
from tests.conformance.pods import WITHIN_S, Obj, World, condition, ended, first, says
from tests.conformance.scenarios import Ends, Scenario, Scenarios
from tests.e2e.conftest import LocalCluster
from tests.hush import hushed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180), pytest.mark.xdist_group('node-volumes')]
scenarios = Scenarios()
scenario = scenarios.add


FOLLOW = 'while :; do for f in {}; do [ -e $f ] && echo "$f=$(cat $f)" || echo "$f is gone"; done; sleep 0.2; done'


# --- volumes that change


def changing(kind: str) -> Scenario:
    secret, projected = 'ecret' in kind, kind.startswith('Projected')

    def volume(name: str, **rest: Any) -> Obj:
        key = 'secretName' if secret and not projected else 'name'
        source = {'secret' if secret else 'configMap': {key: name, **rest}}
        return {'projected': {'sources': [source]}} if projected else source

    resource = SECRETS if secret else CONFIGMAPS
    coded = (lambda v: base64.b64encode(hushed(v).encode()).decode()) if secret else str
    shown = hushed if secret else str

    async def optional(world: World, name: str) -> None:
        for which in ('del', 'upd'):
            await world.make(resource, f'{name}-{which}', data={'data-1': coded('value-1')})
        parts = ('del', 'upd', 'new')
        mounts = [{'name': p, 'mountPath': f'/v/{p}'} for p in parts]
        volumes = [{'name': p, **volume(f'{name}-{p}', optional=True)} for p in parts]
        script = FOLLOW.format(' '.join(f'/v/{p}/data-1 /v/{p}/data-3' for p in parts))
        await world.create(name, 'sh', '-c', script, container={'volumeMounts': mounts}, volumes=volumes)
        await says(world, name, f'/v/del/data-1={shown("value-1")}')
        await world.client.delete(resource, f'{name}-del', world.namespace)
        patch = {'data': {'data-1': None, 'data-3': coded('value-3')}}
        await world.client.patch(resource, f'{name}-upd', patch, world.namespace)
        await world.make(resource, f'{name}-new', data={'data-1': coded('value-1')})
        for text in (
            '/v/del/data-1 is gone',
            f'/v/upd/data-3={shown("value-3")}',
            '/v/upd/data-1 is gone',
            f'/v/new/data-1={shown("value-1")}',
        ):
            await says(world, name, text)

    return optional


for _kind in ('ConfigMap', 'Projected configMap', 'Secrets', 'Projected secret'):
    scenario(f'{_kind} optional updates should be reflected in volume')(changing(_kind))


@scenario(
    'ConfigMap updates should be reflected in volume', 'Projected configMap updates should be reflected in volume'
)
async def a_config_map_changes(world: World, name: str) -> None:
    await world.make(CONFIGMAPS, name, data={'data-1': 'value-1'})
    ref = {'name': name}
    volumes = [{'name': 'a', 'configMap': ref}, {'name': 'b', 'projected': {'sources': [{'configMap': ref}]}}]
    mounts = [{'name': v['name'], 'mountPath': f'/v/{v["name"]}'} for v in volumes]
    script = FOLLOW.format('/v/a/data-1 /v/b/data-1')
    await world.create(name, 'sh', '-c', script, container={'volumeMounts': mounts}, volumes=volumes)
    await says(world, name, '/v/b/data-1=value-1')
    await world.client.patch(CONFIGMAPS, name, {'data': {'data-1': 'value-2'}}, world.namespace)
    for volume in 'ab':
        await says(world, name, f'/v/{volume}/data-1=value-2')


@scenario(
    'Downward API volume should update annotations on modification',
    'Downward API volume should update labels on modification',
    'Projected downwardAPI should update annotations on modification',
    'Projected downwardAPI should update labels on modification',
)
async def metadata_changes(world: World, name: str) -> None:
    items = [{'path': p, 'fieldRef': {'fieldPath': f'metadata.{p}'}} for p in ('labels', 'annotations')]
    api = {'items': items}
    volumes = [{'name': 'a', 'downwardAPI': api}, {'name': 'b', 'projected': {'sources': [{'downwardAPI': api}]}}]
    mounts = [{'name': v['name'], 'mountPath': f'/v/{v["name"]}'} for v in volumes]
    script = FOLLOW.format('/v/a/* /v/b/*')
    await world.create(name, 'sh', '-c', script, container={'volumeMounts': mounts}, volumes=volumes)
    await says(world, name, f'/v/b/labels=name="{name}"')
    patch = {'metadata': {'labels': {'key': 'value-2'}, 'annotations': {'builder': 'foo "quoted"'}}}
    await world.client.patch(PODS, name, patch, world.namespace)
    for volume in 'ab':
        await says(world, name, f'/v/{volume}/labels=key="value-2"')
        await says(world, name, f'/v/{volume}/annotations=builder="foo \\"quoted\\""')


@scenario('EmptyDir volumes pod should support shared volumes between containers')
async def containers_share_a_volume(world: World, name: str) -> None:
    mount = {'image': 'busybox', 'volumeMounts': [{'name': 'v', 'mountPath': '/shared'}]}
    write = {
        'name': 'w',
        'command': ['sh', '-c', 'echo Hello from the busy-box sub-container > /shared/f; sleep 1000'],
        **mount,
    }
    read = {'name': 'c', 'command': ['sh', '-c', FOLLOW.format('/shared/f')], **mount}
    await world.create(name, containers=[write, read], volumes=[{'name': 'v', 'emptyDir': {}}])
    await says(world, name, '/shared/f=Hello from the busy-box sub-container', container='c')


# --- subPath expressions


def expanding(value: str | None = None) -> Obj:
    """A container that mounts below `$(SUB)`: a value, or the pod's annotation `mysubpath`."""
    env: Obj = {'name': 'SUB', 'value': value}
    if value is None:
        env = {'name': 'SUB', 'valueFrom': {'fieldRef': {'fieldPath': "metadata.annotations['mysubpath']"}}}
    mounts = [{'name': 'v', 'mountPath': '/sub', 'subPathExpr': '$(SUB)'}, {'name': 'v', 'mountPath': '/all'}]
    return {'env': [env], 'volumeMounts': mounts}


VOLUME = [{'name': 'v', 'emptyDir': {}}]


@scenario('Variable Expansion should allow substituting values in a volume subpath')
async def a_sub_path_is_expanded(world: World, name: str) -> None:
    script = 'touch /sub/f && ls /all/foo'
    assert await world.output(name, 'sh', '-c', script, container=expanding('foo'), volumes=VOLUME) == 'f\n'


def refused(value: str) -> Scenario:
    async def run(world: World, name: str) -> None:
        await world.create(name, 'sleep', '1000', container=expanding(value), volumes=VOLUME)
        pod = await world.until(
            name,
            lambda p: (first(p).get('state') or {}).get('waiting', {}).get('reason') == 'CreateContainerConfigError',
        )
        assert pod['status']['phase'] == 'Pending'
        assert 'SubPath' in first(pod)['state']['waiting']['message']

    return run


scenario('Variable Expansion should fail substituting values in a volume subpath with absolute path')(refused('/tmp'))
scenario('Variable Expansion should fail substituting values in a volume subpath with backticks')(refused('..'))


@scenario(
    'Variable Expansion should verify that a failing subpath expansion can be modified during the lifecycle of a container [Slow]',
    'Variable Expansion should succeed in writing subpaths in container',
)
async def an_expansion_is_mended(world: World, name: str) -> None:
    await world.create(
        name, 'sh', '-c', 'echo x > /sub/test.log; ls /all/mypath; sleep 1000', container=expanding(), volumes=VOLUME
    )
    await world.until(
        name, lambda p: (first(p).get('state') or {}).get('waiting', {}).get('reason') == 'CreateContainerConfigError'
    )
    await world.client.patch(PODS, name, {'metadata': {'annotations': {'mysubpath': 'mypath'}}}, world.namespace)
    await world.running(name)
    assert await says(world, name, 'test.log') == 'test.log\n'


# --- privilege


@scenario(
    'Container Runtime blackbox test on terminated container should report termination message if TerminationMessagePath is set as non-root user and at a non-default path',
    root=True,
)
async def last_words_of_a_user(world: World, name: str) -> None:
    container = {'terminationMessagePath': '/dev/termination-custom-log', 'securityContext': {'runAsUser': 10000}}
    await world.create(name, 'sh', '-c', 'printf DONE > /dev/termination-custom-log', container=container)
    assert ended(await world.phase(name, 'Succeeded'))['message'] == 'DONE'


@scenario(
    'Security Context When creating a pod with privileged should run the container as unprivileged when false',
    root=True,
)
async def an_unprivileged_container(world: World, name: str) -> None:
    script = 'mkdir m; mount -t tmpfs none m 2>&1 || echo refused; grep -c "CapBnd.*ffffffff" /proc/self/status'
    done = {'securityContext': {'privileged': False}}
    await world.create(name, 'sh', '-c', script, container=done)
    text = await says(world, name, 'refused')
    assert text.endswith('0\n')


@scenario(
    'Security Context when creating containers with AllowPrivilegeEscalation should not allow privilege escalation when false',
    root=True,
)
async def no_escalation(world: World, name: str) -> None:
    shared = {'volumeMounts': [{'name': 'v', 'mountPath': '/v'}], 'image': 'busybox'}
    give = [{'name': 'i', 'command': ['sh', '-c', 'cp $(command -v id) /v/id && chmod u+s /v/id'], **shared}]
    for allow, user in ((False, '1000'), (True, '0')):
        security = {'runAsUser': 1000, 'allowPrivilegeEscalation': allow}
        container = {**shared, 'securityContext': security}
        spec = {'initContainers': give, 'volumes': VOLUME, 'container': container}
        assert await world.output(f'{name}-{user}', '/v/id', '-u', **spec) == f'{user}\n'


# --- names


@scenario('Kubelet when scheduling an agnhost Pod with hostAliases should write entries to /etc/hosts')
async def host_aliases(world: World, name: str) -> None:
    aliases = [{'ip': '123.45.67.89', 'hostnames': ['foo', 'bar']}]
    text = await world.output(name, image='agnhost', container={'args': ['etc-hosts']}, hostAliases=aliases)
    assert '# Entries added by HostAliases.\n123.45.67.89\tfoo\tbar' in text


@scenario('KubeletManagedEtcHosts should test kubelet managed /etc/hosts file')
async def managed_hosts(world: World, name: str) -> None:
    command = {'image': 'busybox', 'command': ['cat', '/etc/hosts']}
    own = {'volumeMounts': [{'name': 'h', 'mountPath': '/etc/hosts', 'subPath': 'hosts'}]}
    containers = [{'name': 'a', **command}, {'name': 'b', **command}, {'name': 'own', **command, **own}]
    await world.make(CONFIGMAPS, name, data={'hosts': '127.0.0.1 mine\n'})
    await world.create(name, containers=containers, volumes=[{'name': 'h', 'configMap': {'name': name}}])
    await world.phase(name, 'Succeeded')
    for container in 'ab':
        assert (await world.logs(name, container=container)).startswith('# Kubernetes-managed hosts file.\n')
    assert await world.logs(name, container='own') == '127.0.0.1 mine\n'
    text = await world.output(f'{name}-host', 'cat', '/etc/hosts', hostNetwork=True)
    assert '# Kubernetes-managed hosts file.' not in text


@scenario('DNS should provide /etc/hosts entries for the cluster')
async def names_of_the_pod(world: World, name: str) -> None:
    script = f'getent hosts h.{name}.{world.namespace}.svc.cluster.local; getent hosts h; hostname'
    text = await world.output(name, 'sh', '-c', script, hostname='h', subdomain=name)
    address = (await world.client.get(PODS, name, world.namespace))['status']['podIP']
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[:2]] == [address, address]
    assert lines[2:] == ['h']


@scenario('DNS should support configurable pod DNS nameservers')
async def a_resolver_of_its_own(world: World, name: str) -> None:
    config = {'nameservers': ['1.1.1.1'], 'searches': ['resolv.conf.local']}
    for args, said in (('dns-suffix', 'resolv.conf.local\n'), ('dns-server-list', '1.1.1.1\n')):
        spec = {'dnsPolicy': 'None', 'dnsConfig': config, 'container': {'args': [args]}}
        assert await world.output(f'{name}-{args}', image='agnhost', **spec) == said


# --- images


@scenario(
    'Containers should use the image defaults if command and args are blank',
    "Containers should be able to override the image's default arguments (container cmd)",
)
async def what_an_image_runs(world: World, name: str) -> None:
    await world.create(name, image='registry.k8s.io/e2e-test-images/agnhost:2.53')
    await says(world, name, 'Paused')
    args = {'args': ['entrypoint-tester', 'override', 'arguments']}
    text = await world.output(f'{name}-2', image='registry.k8s.io/e2e-test-images/agnhost:2.53', container=args)
    assert text == '[/agnhost entrypoint-tester override arguments]\n'


# --- networks between pods


async def netexec(world: World, name: str, **spec: Any) -> str:
    """A netexec that serves; returns its address."""
    args = ['netexec', '--http-port=8083', '--udp-port=8081']
    probe = {'httpGet': {'path': '/healthz', 'port': 8083}, 'periodSeconds': 1}
    await world.create(name, image='agnhost', container={'args': args, 'readinessProbe': probe}, **spec)
    pod = await world.until(name, lambda p: condition(p, 'Ready') == 'True')
    return str(pod['status']['podIP'])


async def dial(world: World, through: str, address: str, protocol: str) -> list[str]:
    port = 8083 if protocol == 'http' else 8081
    query = {'host': address, 'port': str(port), 'request': 'hostname', 'protocol': protocol, 'tries': '1'}
    path = f'/api/v1/namespaces/{world.namespace}/pods/{through}:8083/proxy/dial'
    answer = json.loads(await (await world.client.request('GET', path, params=query)).text())
    assert not answer.get('errors'), answer
    return list(answer['responses'])


@scenario(
    'Networking Granular Checks: Pods should function for intra-pod communication: http',
    'Networking Granular Checks: Pods should function for intra-pod communication: udp',
)
async def pods_reach_each_other(world: World, name: str) -> None:
    a, b = f'{name}-a', f'{name}-b'
    addresses = dict(zip((a, b), await asyncio.gather(netexec(world, a), netexec(world, b)), strict=True))
    for source, target, protocol in product((a, b), (a, b), ('http', 'udp')):
        assert await dial(world, source, addresses[target], protocol) == [target]


@scenario(
    'Networking Granular Checks: Pods should function for node-pod communication: http',
    'Networking Granular Checks: Pods should function for node-pod communication: udp',
)
async def the_node_reaches_pods(world: World, name: str) -> None:
    address = await netexec(world, name)
    script = (
        f"exec 3<>/dev/tcp/{address}/8083; printf 'GET /hostname HTTP/1.0\\r\\n\\r\\n' >&3; tail -n1 <&3; echo; "
        f'exec 4<>/dev/udp/{address}/8081; printf hostname >&4; head -c {len(name)} <&4'
    )
    assert await world.output(f'{name}-host', 'bash', '-c', script, hostNetwork=True) == f'{name}\n{name}'


# --- accounts


@scenario('ServiceAccounts should mount an API token into pods')
async def a_token_is_mounted(world: World, name: str) -> None:
    await world.make(SERVICEACCOUNTS, name)
    script = 'cd /var/run/secrets/kubernetes.io/serviceaccount; for f in token ca.crt namespace; do cat $f; echo; echo ===; done'
    text = await world.output(name, 'sh', '-c', script, serviceAccountName=name)
    token, ca, namespace = (part.strip() for part in text.split('===\n')[:3])
    assert namespace == world.namespace
    assert ca == (await world.client.get(CONFIGMAPS, 'kube-root-ca.crt', world.namespace))['data']['ca.crt'].strip()
    review = {'apiVersion': 'authentication.k8s.io/v1', 'kind': 'TokenReview', 'spec': {'token': token}}
    answer = await world.client.request('POST', '/apis/authentication.k8s.io/v1/tokenreviews', body=review)
    user = (await answer.json())['status']['user']
    assert user['username'] == f'system:serviceaccount:{world.namespace}:{name}'
    assert user['extra']['authentication.kubernetes.io/pod-name'] == [name]


@scenario('ServiceAccounts should allow opting out of API token automount')
async def a_token_is_declined(world: World, name: str) -> None:
    for n, (account, pod) in enumerate(product((None, True, False), repeat=2)):
        settings = {} if account is None else {'automountServiceAccountToken': account}
        await world.make(SERVICEACCOUNTS, f'{name}-{n}', **settings)
        spec = {} if pod is None else {'automountServiceAccountToken': pod}
        made = await world.create(f'{name}-{n}', 'true', serviceAccountName=f'{name}-{n}', **spec)
        mounted = any(m['mountPath'] == '/var/run/secrets/kubernetes.io/serviceaccount'
                      for m in made['spec']['containers'][0].get('volumeMounts') or ())  # fmt: skip
        assert mounted is (pod if pod is not None else account is not False), (account, pod)


@scenario('ServiceAccounts should mount projected service account token', root=True)
async def a_projected_token(world: World, name: str) -> None:
    token = {'serviceAccountToken': {'path': 'token', 'expirationSeconds': 600, 'audience': 'vault'}}
    volumes = [{'name': 'v', 'projected': {'sources': [token]}}]
    spec = {'container': {'volumeMounts': [{'name': 'v', 'mountPath': '/t'}]}, 'volumes': volumes}
    claims = []
    for n, (user, mode) in enumerate(
        (({}, '644'), ({'runAsUser': 1000}, '600'), ({'runAsUser': 1000, 'fsGroup': 10000}, '640'))
    ):
        text = await world.output(
            f'{name}-{n}', 'sh', '-c', 'stat -Lc %a /t/token; cat /t/token', securityContext=user, **spec
        )
        shown, _, token_text = text.partition('\n')
        assert shown == mode
        claims.append(json.loads(base64.urlsafe_b64decode(token_text.split('.')[1] + '==')))
    assert all(c['aud'] == ['vault'] and c['exp'] - c['iat'] == 600 for c in claims)


# --- proxies


@scenario(
    'Proxy version v1 should proxy through a service and a pod',
    'Proxy version v1 A set of valid responses are returned for both pod and service Proxy',
    'Proxy version v1 A set of valid responses are returned for both pod and service ProxyWithPath',
)
async def proxies(world: World, name: str) -> None:
    env = [{'name': 'SERVE_PORT_8080', 'value': 'foo'}, {'name': 'SERVE_PORT_8081', 'value': 'bar'}]
    ports = [{'name': 'one', 'containerPort': 8080}, {'name': 'two', 'containerPort': 8081}]
    probe = {'tcpSocket': {'port': 8081}, 'periodSeconds': 1}
    await world.create(
        name, image='agnhost', container={'args': ['porter'], 'env': env, 'ports': ports, 'readinessProbe': probe}
    )
    links = [{'name': 'http', 'port': 80, 'targetPort': 'one'}, {'name': 'second', 'port': 81, 'targetPort': 'two'}]
    await world.make(SERVICES, name, spec={'selector': {'name': name}, 'ports': links})
    await world.until(name, lambda p: condition(p, 'Ready') == 'True')
    base = f'/api/v1/namespaces/{world.namespace}'
    expected = {
        f'{base}/pods/{name}:8080/proxy/': 'foo', f'{base}/pods/{name}:8081/proxy/some/path': 'bar',
        f'{base}/services/{name}:http/proxy/': 'foo', f'{base}/services/{name}:second/proxy/some/path': 'bar',
        f'{base}/services/{name}:80/proxy': 'foo', f'{base}/services/{name}:81/proxy/': 'bar',
    }  # fmt: skip
    async with asyncio.timeout(WITHIN_S):
        while not (await world.client.get(ENDPOINTS, name, world.namespace)).get('subsets'):
            await asyncio.sleep(0.05)
    for path, said in expected.items():
        for method in ('GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'):
            answer = await world.client.request(method, path)
            assert await answer.text() == said, (method, path)
    assert (await world.client.request('HEAD', f'{base}/pods/{name}:8080/proxy/')).status == 200


@pytest.fixture(scope='module')
def ends(cluster: LocalCluster) -> Ends:
    return scenarios.run(cluster)


@pytest.mark.parametrize('name', scenarios.rows())
def test_a_scenario_ends_well(ends: Ends, name: str) -> None:
    scenarios.judge(ends, name)
