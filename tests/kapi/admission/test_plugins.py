"""The built-in plugins that shape or refuse pods, claims, nodes, owners and certificate requests."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kapi.admission.podsecurity.checks import Level, violations

CORE = '/api/v1/namespaces/default'
GOOD = {
    'allowPrivilegeEscalation': False, 'capabilities': {'drop': ['ALL']}, 'runAsNonRoot': True,
    'seccompProfile': {'type': 'RuntimeDefault'},
}  # fmt: skip


def pod(name: str = 'p', *, security: Any = None, resources: Any = None, **spec: Any) -> dict[str, Any]:
    container = {'name': 'c', 'image': 'i'}
    if security is not None:
        container['securityContext'] = security
    if resources is not None:
        container['resources'] = resources
    return {'metadata': {'name': name}, 'spec': {'containers': [container], **spec}}


async def label(api: Any, **levels: str) -> None:
    labels = {f'pod-security.kubernetes.io/{k}': v for k, v in levels.items()}
    assert (await api.patch('/api/v1/namespaces/default', {'metadata': {'labels': labels}})).status == 200
    await api.get('/api/v1/namespaces/default')


@pytest.mark.parametrize(
    ('change', 'baseline', 'restricted'),
    [
        ({'security': GOOD}, '', ''),
        ({}, '', 'allowPrivilegeEscalation != false'),
        ({'security': {**GOOD, 'privileged': True, 'allowPrivilegeEscalation': True}}, 'privileged', 'privileged'),
        ({'security': GOOD, 'hostNetwork': True}, 'host namespaces (hostNetwork=true)', 'host namespaces'),
        ({'security': GOOD, 'hostPID': True}, 'host namespaces (hostPID=true)', 'host namespaces'),
        ({'security': GOOD, 'volumes': [{'name': 'v', 'hostPath': {'path': '/'}}]}, 'hostPath volumes (volume "v")',
         'restricted volume types (volume "v" uses restricted volume type "hostPath")'),
        ({'security': GOOD, 'volumes': [{'name': 'v', 'nfs': {'server': 's', 'path': '/'}}]}, '', '"nfs"'),
        ({'security': {**GOOD, 'capabilities': {'drop': ['ALL'], 'add': ['SYS_ADMIN']}}},
         'must not include "SYS_ADMIN"', 'must not include "SYS_ADMIN"'),
        ({'security': {**GOOD, 'capabilities': {'drop': ['ALL'], 'add': ['CHOWN']}}}, '', '"CHOWN"'),
        ({'security': {**GOOD, 'capabilities': {'drop': ['ALL'], 'add': ['NET_BIND_SERVICE']}}}, '', ''),
        ({'security': {**GOOD, 'runAsUser': 0}}, '', 'runAsUser=0'),
        ({'security': {**GOOD, 'runAsNonRoot': False}}, '', 'must not set securityContext.runAsNonRoot=false'),
        ({'security': {**GOOD, 'procMount': 'Unmasked'}, 'hostUsers': True}, 'procMount', 'procMount'),
        ({'security': {**GOOD, 'procMount': 'Unmasked'}, 'hostUsers': False}, 'procMount', 'procMount'),
        ({'security': {**GOOD, 'seccompProfile': {'type': 'Unconfined'}}}, 'seccompProfile', 'seccompProfile'),
        ({'security': {**GOOD, 'seLinuxOptions': {'type': 'spc_t'}}}, 'seLinuxOptions', 'seLinuxOptions'),
        ({'security': GOOD, 'securityContext': {'sysctls': [{'name': 'kernel.msgmax', 'value': '1'}]}},
         'forbidden sysctls (kernel.msgmax)', 'forbidden sysctls'),
        ({'security': GOOD, 'securityContext': {'sysctls': [{'name': 'net.ipv4.tcp_rmem', 'value': '1'}]}}, '', ''),
    ],
)  # fmt: skip
async def test_pod_security_levels(api: Any, change: Any, baseline: str, restricted: str) -> None:
    for level, broken in (('privileged', ''), ('baseline', baseline), ('restricted', restricted)):
        await label(api, enforce=level)
        made = await api.post(f'{CORE}/pods?dryRun=All', pod(**change))
        if broken:
            assert made.status == 403, (level, made.text)
            assert f'violates PodSecurity "{level}:latest": ' in made.json['message']
            assert broken in made.json['message']
        else:
            assert made.status == 201, (level, made.text)


def containers(*contexts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{'name': name, 'securityContext': {**GOOD, **own}} for name, own in zip('abc', contexts, strict=False)]


PROBE = {'httpGet': {'host': 'h', 'port': 80}}


@pytest.mark.parametrize(('level', 'minor', 'spec', 'text'), [
    ('restricted', 40, {'securityContext': {'runAsNonRoot': False}, 'containers': containers({}, {})},
     'runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)'),
    ('restricted', 40, {'securityContext': {'runAsNonRoot': False}, 'containers': containers({'runAsNonRoot': False})},
     'runAsNonRoot != true (pod and container "a" must not set securityContext.runAsNonRoot=false)'),
    ('restricted', 40, {'hostUsers': False, 'containers': containers({'runAsNonRoot': False, 'runAsUser': 0})}, ''),
    ('restricted', 34, {'hostUsers': False, 'containers': containers({'runAsUser': 0})},
     'runAsUser=0 (container "a" must not set runAsUser=0)'),
    ('restricted', 40, {'securityContext': {'seccompProfile': {'type': 'Unconfined'}}, 'containers': containers({})},
     'seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")'),
    ('baseline', 40, {'securityContext': {'seLinuxOptions': {'type': 'x', 'role': 'r'}}, 'containers': containers(
        {'seLinuxOptions': {'type': 'y', 'user': 'u'}}, {}, {'seLinuxOptions': {'role': 'r'}})},
     'seLinuxOptions (pod and containers "a", "c" set forbidden securityContext.seLinuxOptions: types "x", "y"; '
     'user may not be set; role may not be set)'),
    ('baseline', 40, {'securityContext': {'appArmorProfile': {'type': 'Unconfined'}}, 'containers': containers(
        {'appArmorProfile': {'type': 'Unconfined'}})},
     'forbidden AppArmor profile (pod and container "a" must not set AppArmor profile type to "Unconfined")'),
    ('baseline', 40, {'containers': [{'name': 'b', 'livenessProbe': PROBE}, {'name': 'a', 'lifecycle': {
        'preStop': {'tcpSocket': {'host': 'g'}}}}]},
     'probe or lifecycle host (containers "a", "b" use probe or lifecycle hosts "g", "h")'),
    ('baseline', 33, {'containers': [{'name': 'b', 'livenessProbe': PROBE}]}, ''),
    ('baseline', 40, {'hostUsers': False, 'containers': containers({'procMount': 'Unmasked'})}, ''),
    ('baseline', 34, {'hostUsers': False, 'containers': containers({'procMount': 'Unmasked'})},
     'procMount (container "a" must not set securityContext.procMount to "Unmasked")'),
    ('restricted', 40, {'hostUsers': False, 'containers': containers({'procMount': 'Unmasked'})},
     'procMount (container "a" must not set securityContext.procMount to "Unmasked")'),
    ('restricted', 40, {'containers': containers({}), 'volumes': [{'name': 'i', 'image': {}}, {'name': 'n', 'nfs': {}},
                                                                  {'name': 'h', 'hostPath': {}}]},
     'restricted volume types (volumes "h", "n" use restricted volume types "hostPath", "nfs")'),
    ('baseline', 18, {'containers': containers({'seccompProfile': {'type': 'Unconfined'}})},
     'seccompProfile (forbidden annotation container.seccomp.security.alpha.kubernetes.io/a="unconfined")'),
])  # fmt: skip
def test_pod_security_says_who_broke_what(level: Level, minor: int, spec: dict[str, Any], text: str) -> None:
    meta = {'annotations': {'container.seccomp.security.alpha.kubernetes.io/a': 'unconfined'}}
    assert ', '.join(map(str, violations(level, (1, minor), meta, spec))) == text


async def test_pod_security_warns_of_templates_and_refuses_bad_labels(api: Any) -> None:
    await label(api, warn='restricted', enforce='privileged')
    spec = {'selector': {'matchLabels': {'a': 'b'}}, 'template': {**pod(), 'metadata': {'labels': {'a': 'b'}}}}
    made = await api.post('/apis/apps/v1/namespaces/default/deployments', {'metadata': {'name': 'd'}, 'spec': spec})
    assert made.status == 201
    assert 'would violate PodSecurity' in made.headers['Warning']
    bad = {'metadata': {'labels': {'pod-security.kubernetes.io/enforce': 'tight'}}}
    assert (await api.patch('/api/v1/namespaces/default', bad)).status == 422


WINDOWS = {'security': {'runAsNonRoot': True}, 'os': {'name': 'windows'}}


@pytest.mark.parametrize(('change', 'since', 'level'), [
    ({'securityContext': {'sysctls': [{'name': 'net.ipv4.ip_local_reserved_ports', 'value': '1'}]}}, 27, 'baseline'),
    ({'securityContext': {'sysctls': [{'name': 'net.ipv4.tcp_fin_timeout', 'value': '1'}]}}, 29, 'baseline'),
    ({'securityContext': {'sysctls': [{'name': 'net.ipv4.tcp_rmem', 'value': '1'}]}}, 32, 'baseline'),
    ({'securityContext': {'seLinuxOptions': {'type': 'container_engine_t'}}}, 31, 'baseline'),
    (WINDOWS, 25, 'restricted'),
])  # fmt: skip
async def test_a_later_version_of_the_standards_allows_more(api: Any, change: Any, since: int, level: str) -> None:
    for minor, status in ((since - 1, 403), (since, 201)):
        await label(api, **{'enforce': level, 'enforce-version': f'v1.{minor}'})
        made = await api.post(f'{CORE}/pods?dryRun=All', pod(**change))
        assert made.status == status, (minor, made.text)
        assert status == 201 or f'violates PodSecurity "{level}:v1.{minor}": ' in made.json['message']


@pytest.mark.parametrize(('missing', 'since', 'reason'), [
    ('allowPrivilegeEscalation', 8, 'allowPrivilegeEscalation != false'),
    ('seccompProfile', 19, 'seccompProfile'),
    ('capabilities', 22, 'unrestricted capabilities'),
    ('runAsNonRoot', 0, 'runAsNonRoot != true'),
])  # fmt: skip
async def test_a_later_version_of_the_standards_asks_for_more(api: Any, missing: str, since: int, reason: str) -> None:
    security = {k: v for k, v in GOOD.items() if k != missing}
    for minor in (since - 1, since):
        if minor >= 0:
            await label(api, **{'enforce': 'restricted', 'enforce-version': f'v1.{minor}'})
            made = await api.post(f'{CORE}/pods?dryRun=All', pod(security=security))
            assert (made.status == 403, reason in made.text) == (minor >= since, minor >= since), (minor, made.text)


async def test_a_tightened_namespace_names_the_pods_that_would_be_refused(api: Any) -> None:
    for name in ('b', 'a', 'c'):
        await api.post(f'{CORE}/pods', pod(name, hostNetwork=True))
    await api.post(f'{CORE}/pods', pod('fine'))
    await api.get(f'{CORE}/pods')
    path, key = '/api/v1/namespaces/default', 'pod-security.kubernetes.io/enforce'
    told = await api.patch(path, {'metadata': {'labels': {key: 'baseline'}}})
    warnings = told.headers.getall('Warning')
    assert [w.partition('"')[2].removesuffix('"') for w in warnings] == [
        'existing pods in namespace \\"default\\" violate the new PodSecurity enforce level \\"baseline:latest\\"',
        'a (and 2 other pods): host namespaces',
    ]
    for labels in ({'a': 'b'}, {key: 'privileged'}):
        assert 'Warning' not in (await api.patch(path, {'metadata': {'labels': labels}})).headers
    for bad in ('v1', 'newest', 'v1.01', 'v2.0'):
        refused = await api.patch(path, {'metadata': {'labels': {f'{key}-version': bad}}})
        assert (refused.status, 'must be "latest" or "v1.x"' in refused.json['message']) == (422, True)


async def test_limit_ranges_fill_in_and_bound(api: Any) -> None:
    limit = {
        'type': 'Container', 'default': {'cpu': '500m'}, 'defaultRequest': {'cpu': '100m'}, 'max': {'cpu': '2'},
        'min': {'cpu': '50m'}, 'maxLimitRequestRatio': {'cpu': '10'},
    }  # fmt: skip
    await api.post(f'{CORE}/limitranges', {'metadata': {'name': 'l'}, 'spec': {'limits': [limit]}})
    await api.get(f'{CORE}/limitranges')
    made = await api.post(f'{CORE}/pods', pod('a'))
    assert made.json['spec']['containers'][0]['resources'] == {'limits': {'cpu': '500m'}, 'requests': {'cpu': '100m'}}
    note = made.json['metadata']['annotations']['kubernetes.io/limit-ranger']
    assert note == 'LimitRanger plugin set: cpu request for container c; cpu limit for container c'
    for resources, why in (
        ({'limits': {'cpu': '3'}}, 'maximum cpu usage per Container is 2, but limit is 3'),
        ({'requests': {'cpu': '10m'}}, 'minimum cpu usage per Container is 50m, but request is 10m'),
        ({'requests': {'cpu': '100m'}, 'limits': {'cpu': '2'}}, 'but provided ratio is 20.000000'),
    ):
        refused = await api.post(f'{CORE}/pods', pod('b', resources=resources))
        assert refused.status == 403
        assert why in refused.json['message']


async def test_a_ratio_of_limit_to_request_needs_both(api: Any) -> None:
    limit = {'type': 'Container', 'maxLimitRequestRatio': {'memory': '2'}}
    await api.post(f'{CORE}/limitranges', {'metadata': {'name': 'l'}, 'spec': {'limits': [limit]}})
    await api.get(f'{CORE}/limitranges')
    for resources, side in (({}, 'request'), ({'requests': {'memory': '1Gi'}}, 'limit')):
        refused = await api.post(f'{CORE}/pods', pod('b', resources=resources))
        assert refused.json['message'] == (
            'pods "b" is forbidden: memory max limit to request ratio per Container is 2, '
            f'but no {side} is specified or {side} is 0'
        )


async def test_claims_get_the_default_storage_class(api: Any) -> None:
    classes = '/apis/storage.k8s.io/v1/storageclasses'
    for name, mark in (('slow', 'false'), ('fast', 'true')):
        meta = {'name': name, 'annotations': {'storageclass.kubernetes.io/is-default-class': mark}}
        assert (await api.post(classes, {'metadata': meta, 'provisioner': 'x/y'})).status == 201
    await api.get(classes)
    spec = {'accessModes': ['ReadWriteOnce'], 'resources': {'requests': {'storage': '1Gi'}}}
    made = await api.post(f'{CORE}/persistentvolumeclaims', {'metadata': {'name': 'a'}, 'spec': spec})
    assert made.json['spec']['storageClassName'] == 'fast'
    none = {'metadata': {'name': 'b'}, 'spec': {**spec, 'storageClassName': ''}}
    assert (await api.post(f'{CORE}/persistentvolumeclaims', none)).json['spec']['storageClassName'] == ''


async def test_a_claim_may_grow_when_it_is_bound_and_its_class_allows_it_and_never_shrinks_below_what_it_has(
    api: Any,
) -> None:
    for name, grows in (('stiff', False), ('elastic', True)):
        body = {'metadata': {'name': name}, 'provisioner': 'x/y', 'allowVolumeExpansion': grows}
        assert (await api.post('/apis/storage.k8s.io/v1/storageclasses', body)).status == 201
    await api.get('/apis/storage.k8s.io/v1/storageclasses')
    claims = f'{CORE}/persistentvolumeclaims'

    async def resize(name: str, size: str) -> str:
        body = {'spec': {'resources': {'requests': {'storage': size}}}}
        answer = await api.patch(f'{claims}/{name}', body)
        return str(answer.json.get('message', '')) if answer.status >= 400 else 'resized'

    for name in ('stiff', 'elastic'):
        spec = {'accessModes': ['ReadWriteOnce'], 'resources': {'requests': {'storage': '2Gi'}}}
        await api.post(claims, {'metadata': {'name': name}, 'spec': {**spec, 'storageClassName': name}})
    assert 'spec is immutable' in await resize('elastic', '3Gi')
    for name in ('stiff', 'elastic'):
        status = {'phase': 'Bound', 'capacity': {'storage': '2Gi'}}
        assert (await api.patch(f'{claims}/{name}/status', {'status': status})).status == 200
    assert 'only dynamically provisioned pvc can be resized' in await resize('stiff', '3Gi')
    assert await resize('elastic', '4Gi') == 'resized'
    assert await resize('elastic', '3Gi') == 'resized'  # growing failed, so less is asked for
    assert 'field can not be less than status.capacity' in await resize('elastic', '2Gi')


async def test_a_claim_without_a_class_takes_one_later_and_keeps_it(api: Any) -> None:
    claims = f'{CORE}/persistentvolumeclaims'
    spec = {'accessModes': ['ReadWriteOnce'], 'resources': {'requests': {'storage': '1Gi'}}}
    await api.post(claims, {'metadata': {'name': 'a'}, 'spec': spec})
    assert (await api.patch(f'{claims}/a', {'spec': {'storageClassName': 'fast'}})).status == 200
    assert (await api.patch(f'{claims}/a', {'spec': {'storageClassName': 'slow'}})).status == 422


async def test_runtime_classes_must_exist_and_bring_their_overhead(api: Any) -> None:
    refused = await api.post(f'{CORE}/pods', pod(runtimeClassName='gvisor'))
    assert refused.status == 403
    assert 'RuntimeClass "gvisor" not found' in refused.json['message']
    body = {'metadata': {'name': 'gvisor'}, 'handler': 'runsc', 'overhead': {'podFixed': {'cpu': '250m'}},
            'scheduling': {'nodeSelector': {'a': 'b'}}}  # fmt: skip
    assert (await api.post('/apis/node.k8s.io/v1/runtimeclasses', body)).status == 201
    made = await api.post(f'{CORE}/pods', pod(runtimeClassName='gvisor'))
    assert made.json['spec']['overhead'] == {'cpu': '250m'}
    assert made.json['spec']['nodeSelector'] == {'a': 'b'}


async def test_new_nodes_are_tainted_until_they_are_seen_ready(api: Any) -> None:
    made = await api.post('/api/v1/nodes', {'metadata': {'name': 'n'}})
    assert made.json['spec']['taints'] == [{'key': 'node.kubernetes.io/not-ready', 'effect': 'NoSchedule'}]


async def test_owners_are_set_only_by_those_who_may(world: Any, api: Any) -> None:
    rbac = '/apis/rbac.authorization.k8s.io/v1/namespaces/default'
    rules = [{'verbs': ['create', 'update', 'get', 'patch'], 'apiGroups': [''], 'resources': ['configmaps', 'pods']}]
    await api.post(f'{rbac}/roles', {'metadata': {'name': 'r'}, 'rules': rules})
    subject = {'kind': 'User', 'name': 'bob', 'apiGroup': 'rbac.authorization.k8s.io'}
    ref = {'kind': 'Role', 'name': 'r', 'apiGroup': 'rbac.authorization.k8s.io'}
    await api.post(f'{rbac}/rolebindings', {'metadata': {'name': 'b'}, 'roleRef': ref, 'subjects': [subject]})
    owner = {'apiVersion': 'v1', 'kind': 'Pod', 'name': 'x', 'uid': 'u'}
    bob = await world.user('bob')
    await api.get(f'{rbac}/rolebindings')
    assert (await bob.post(f'{CORE}/configmaps', {'metadata': {'name': 'a'}})).status == 201
    change = {'metadata': {'ownerReferences': [owner]}}
    refused = await bob.patch(f'{CORE}/configmaps/a', change)
    assert refused.status == 403
    assert "cannot set an ownerRef on a resource you can't delete" in refused.json['message']
    blocking = {'metadata': {'name': 'b', 'ownerReferences': [{**owner, 'blockOwnerDeletion': True}]}}
    assert (await bob.post(f'{CORE}/configmaps', blocking)).status == 403
    assert (await bob.post(f'{CORE}/configmaps', {'metadata': {'name': 'c', 'ownerReferences': [owner]}})).status == 201


def request(*groups: str) -> str:
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, g) for g in groups]
    subject = x509.Name([*names, x509.NameAttribute(NameOID.COMMON_NAME, 'eve')])
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()


async def test_certificate_requests_name_their_author_and_are_decided_by_permission(world: Any, api: Any) -> None:
    requests = '/apis/certificates.k8s.io/v1/certificatesigningrequests'
    rbac = '/apis/rbac.authorization.k8s.io/v1'
    rules = [{'verbs': ['*'], 'apiGroups': ['certificates.k8s.io'],
              'resources': ['certificatesigningrequests', 'certificatesigningrequests/approval']}]  # fmt: skip
    await api.post(f'{rbac}/clusterroles', {'metadata': {'name': 'r'}, 'rules': rules})
    ref = {'kind': 'ClusterRole', 'name': 'r', 'apiGroup': 'rbac.authorization.k8s.io'}
    subject = {'kind': 'User', 'name': 'eve', 'apiGroup': 'rbac.authorization.k8s.io'}
    binding = {'metadata': {'name': 'b'}, 'roleRef': ref, 'subjects': [subject]}
    assert (await api.post(f'{rbac}/clusterrolebindings', binding)).status == 201
    await api.get(f'{rbac}/clusterrolebindings')
    eve = await world.user('eve', 'dev')
    spec = {'request': request(), 'signerName': 'kubernetes.io/kube-apiserver-client', 'usages': ['client auth'],
            'username': 'somebody-else', 'groups': ['system:masters']}  # fmt: skip
    made = await eve.post(requests, {'metadata': {'name': 'c'}, 'spec': spec})
    assert made.status == 201, made.text
    assert made.json['spec']['username'] == 'eve'
    assert made.json['spec']['groups'] == ['dev', 'system:authenticated']
    approved = {'type': 'Approved', 'status': 'True', 'reason': 'r', 'message': 'm'}
    change = {'status': {'conditions': [approved]}}
    refused = await eve.patch(f'{requests}/c/approval', change)
    assert refused.status == 403
    assert 'user not permitted to approve requests with signerName' in refused.json['message']
    forged = {'status': {'conditions': [approved], 'certificate': 'Zm9yZ2Vk'}}
    done = (await api.patch(f'{requests}/c/approval', forged)).json['status']
    assert (done.keys(), done['conditions'][0].keys() >= {'lastUpdateTime', 'lastTransitionTime'}) == (
        {'conditions'},
        True,
    )
    unsure = {'status': {'conditions': [{**approved, 'status': 'Unknown'}]}}
    assert 'supported values: \\"True\\"' in (await api.patch(f'{requests}/c/approval', unsure)).text
    assert (await api.patch(f'{requests}/c/approval', {'status': {'conditions': []}})).status == 422
    masters = {**spec, 'request': request('system:masters')}
    assert (await eve.post(requests, {'metadata': {'name': 'd'}, 'spec': masters})).status == 403
    rubbish = {**spec, 'request': base64.b64encode(b'rubbish').decode()}
    assert (await eve.post(requests, {'metadata': {'name': 'e'}, 'spec': rubbish})).status == 422
