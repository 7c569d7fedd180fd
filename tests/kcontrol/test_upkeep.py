"""Volumes, certificates, tokens, aggregated roles, mirrored endpoints: objects end to end on the real API."""

from __future__ import annotations

import base64
import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kclient.api import Client
from kclient.errors import AlreadyExists
from kcontrol.controllers.attachdetach.plan import attachment_name
from kcontrol.controllers.bootstrap.reconcile import detached_signature
from kcontrol.kinds import CERTIFICATESIGNINGREQUESTS, CLUSTERROLES, STORAGECLASSES, VOLUMEATTACHMENTS
from kcontrol.scheduler.cycle import run_scheduler
from kcore.meta.gvk import (
    CONFIGMAPS,
    ENDPOINTS,
    ENDPOINTSLICES,
    EVENTS,
    NAMESPACES,
    NODES,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    PODS,
    SECRETS,
    SERVICEACCOUNTS,
    SERVICES,
)
from kcore.meta.objects import annotations_of, get_condition, get_path, labels_of, name_of
from kcore.meta.times import format_time
from tests.hush import MARK

pytestmark = pytest.mark.parametrize('config_of', ['kapi'], indirect=True)
VOLUMES = (
    'persistentvolumeclaimbinder', 'persistentvolumebinder', 'pvcprotection', 'pvprotection', 'ephemeralvolume',
    'attachdetach',
)  # fmt: skip


def volume(name: str, size: str, **spec) -> dict:
    base = {'capacity': {'storage': size}, 'accessModes': ['ReadWriteOnce'], 'storageClassName': 'manual',
            'persistentVolumeReclaimPolicy': 'Retain'}  # fmt: skip
    source = {} if 'csi' in spec else {'hostPath': {'path': '/x'}}
    return {'metadata': {'name': name}, 'spec': {**base, **source, **spec}}


def claim(name: str, size: str, storage: str = 'manual') -> dict:
    spec = {'accessModes': ['ReadWriteOnce'], 'storageClassName': storage, 'resources': {'requests': {'storage': size}}}
    return {'metadata': {'name': name, 'namespace': 'default'}, 'spec': spec}


def user_of(name: str, claim_name: str) -> dict:
    held = [{'name': 'v', 'persistentVolumeClaim': {'claimName': claim_name}}]
    spec = {'nodeName': 'n1', 'containers': [{'name': 'c', 'image': 'x'}], 'volumes': held}
    return {'metadata': {'name': name, 'namespace': 'default'}, 'spec': spec}


@pytest.fixture
def phase(admin, exists):
    def ask(resource, name: str, wanted: str | None, namespace: str | None = None):
        async def found() -> bool:
            held = await exists(admin, resource, name, namespace)
            return (get_path(held, 'status.phase') if held is not None else None) == wanted

        return found

    return ask


async def test_a_claim_gets_the_smallest_volume_and_data_outlive_it(admin, controllers, until, phase):
    await controllers(*VOLUMES)
    for name, size in (('big', '10Gi'), ('small', '2Gi'), ('tiny', '1Gi')):
        await admin.create(PERSISTENTVOLUMES, volume(name, size))
    for name in ('one', 'two', 'three'):
        await admin.create(PERSISTENTVOLUMECLAIMS, claim(name, '2Gi'))
    await until(phase(PERSISTENTVOLUMES, 'small', 'Bound'))
    await until(phase(PERSISTENTVOLUMES, 'big', 'Bound'))
    held = {name_of(x): x for x in (await admin.list(PERSISTENTVOLUMECLAIMS, 'default')).items}

    async def bound() -> list[str]:
        items = (await admin.list(PERSISTENTVOLUMECLAIMS, 'default')).items
        found = [x['spec']['volumeName'] for x in items if get_path(x, 'status.phase') == 'Bound']
        return sorted(found) if len(found) == 2 else []

    assert await until(bound) == ['big', 'small'], 'one volume serves one claim; the third waits'
    await until(phase(PERSISTENTVOLUMES, 'tiny', 'Available'))
    owner = (await admin.get(PERSISTENTVOLUMES, 'small'))['spec']['claimRef']['name']
    assert held[owner]['metadata']['uid'] == (await admin.get(PERSISTENTVOLUMES, 'small'))['spec']['claimRef']['uid']
    # A claim in use is not deleted before its last user is gone; its volume keeps the data.
    await admin.create(PODS, user_of('p', owner))
    await admin.delete(PERSISTENTVOLUMECLAIMS, owner, 'default')
    c = await admin.get(PERSISTENTVOLUMECLAIMS, owner, 'default')
    assert c['metadata']['finalizers'] == ['kubernetes.io/pvc-protection']
    await admin.delete(PODS, 'p', 'default', grace_period_s=0)
    await until(phase(PERSISTENTVOLUMECLAIMS, owner, None, 'default'))
    await until(phase(PERSISTENTVOLUMES, 'small', 'Released'))
    await admin.delete(PERSISTENTVOLUMES, 'small')
    await until(phase(PERSISTENTVOLUMES, 'small', None))


async def test_a_class_may_wait_for_a_consumer_and_asks_its_provisioner(admin, controllers, until):
    await controllers(*VOLUMES)
    lazy = {'metadata': {'name': 'lazy'}, 'provisioner': 'example.com/p', 'volumeBindingMode': 'WaitForFirstConsumer'}
    await admin.create(STORAGECLASSES, lazy)
    await admin.create(STORAGECLASSES, {**lazy, 'metadata': {'name': 'eager'}, 'volumeBindingMode': 'Immediate'})
    await admin.create(PERSISTENTVOLUMECLAIMS, claim('l', '1Gi', 'lazy'))
    await admin.create(PERSISTENTVOLUMECLAIMS, claim('e', '1Gi', 'eager'))

    async def asked(name: str) -> bool:
        held = await admin.get(PERSISTENTVOLUMECLAIMS, name, 'default')
        return annotations_of(held).get('volume.kubernetes.io/storage-provisioner') == 'example.com/p'

    await until(lambda: asked('e'))
    assert not await asked('l')
    chosen = {'metadata': {'annotations': {'volume.kubernetes.io/selected-node': 'n1'}}}
    await admin.patch(PERSISTENTVOLUMECLAIMS, 'l', chosen, 'default')
    await until(lambda: asked('l'))


async def test_a_local_volume_of_a_node_is_bound_before_the_pod_that_waits_for_it(
    config_of, env, admin, *, background, controllers, until
):
    await controllers(*VOLUMES)
    scheduler = Client(config_of('scheduler'), env, user_agent='scheduler')
    background(run_scheduler(scheduler, env))
    local = {
        'metadata': {'name': 'local'}, 'provisioner': 'kubernetes.io/no-provisioner',
        'volumeBindingMode': 'WaitForFirstConsumer',
    }  # fmt: skip
    await admin.create(STORAGECLASSES, local)
    for name in ('n1', 'n2'):
        await admin.create(NODES, {'metadata': {'name': name, 'labels': {'kubernetes.io/hostname': name}}})
        room = {'cpu': '4', 'memory': '8Gi', 'pods': '9'}
        await admin.patch(NODES, name, {'spec': {'taints': None}})
        await admin.patch(NODES, name, {'status': {'capacity': room, 'allocatable': room}}, subresource='status')
    waiting = user_of('p', 'data')
    del waiting['spec']['nodeName']
    await admin.create(PODS, waiting)

    async def condition(text: str) -> bool:
        found = get_condition(await admin.get(PODS, 'p', 'default'), 'PodScheduled') or {}
        return text in found.get('message', '')

    await until(lambda: condition('persistentvolumeclaim "data" not found'))
    await admin.create(PERSISTENTVOLUMECLAIMS, claim('data', '1Gi', 'local'))
    await until(lambda: condition("2 node(s) didn't find available persistent volumes to bind"))
    rule = {'key': 'kubernetes.io/hostname', 'operator': 'In', 'values': ['n2']}
    where = {'required': {'nodeSelectorTerms': [{'matchExpressions': [rule]}]}}
    disk = volume('disk', '1Gi', storageClassName='local', nodeAffinity=where)
    await admin.create(PERSISTENTVOLUMES, disk)

    async def placed() -> bool:
        return (await admin.get(PODS, 'p', 'default'))['spec'].get('nodeName') == 'n2'

    await until(placed)
    held = await admin.get(PERSISTENTVOLUMECLAIMS, 'data', 'default')
    assert (held['spec']['volumeName'], held['status']['phase']) == ('disk', 'Bound')
    await scheduler.close()


async def told(admin, reason: str, message: str) -> bool:
    return any((e['reason'], e['message']) == (reason, message) for e in (await admin.list(EVENTS, 'default')).items)


async def test_ephemeral_claims_belong_to_their_pod_and_csi_volumes_are_attached(admin, controllers, until, exists):
    await controllers(*VOLUMES)
    await admin.create(NODES, {'metadata': {'name': 'n1'}})
    csi = {'driver': 'example.com/d', 'volumeHandle': 'h1'}
    await admin.create(PERSISTENTVOLUMES, volume('disk', '1Gi', csi=csi))
    template = {'volumeClaimTemplate': {'spec': claim('', '1Gi')['spec']}}
    spec = {
        'nodeName': 'n1',
        'containers': [{'name': 'c', 'image': 'x'}],
        'volumes': [{'name': 'v', 'ephemeral': template}],
    }
    foreign = await admin.create(PERSISTENTVOLUMECLAIMS, claim('late-v', '1Gi', 'other'))
    await admin.create(PODS, {'metadata': {'name': 'late', 'namespace': 'default'}, 'spec': spec})
    text = 'ephemeral volume v: PVC default/late-v was not created for pod default/late (pod is not owner)'
    await until(lambda: told(admin, 'FailedBinding', text))
    assert foreign['metadata'].get('ownerReferences') is None
    p = await admin.create(PODS, {'metadata': {'name': 'p', 'namespace': 'default'}, 'spec': spec})
    held = await until(lambda: exists(admin, PERSISTENTVOLUMECLAIMS, 'p-v', 'default'))
    assert held['metadata']['ownerReferences'][0]['uid'] == p['metadata']['uid']
    name = attachment_name('example.com/d', 'h1', 'n1')
    await until(lambda: exists(admin, VOLUMEATTACHMENTS, name))
    await admin.patch(VOLUMEATTACHMENTS, name, {'status': {'attached': True}}, subresource='status')

    async def shown() -> bool:
        return bool((await admin.get(NODES, 'n1')).get('status', {}).get('volumesAttached'))

    await until(shown)
    await until(lambda: told(admin, 'SuccessfulAttachVolume', 'AttachVolume.Attach succeeded for volume "disk" '))
    await admin.create(NODES, {'metadata': {'name': 'n2'}})
    again = {**spec, 'nodeName': 'n2', 'volumes': [{'name': 'v', 'persistentVolumeClaim': {'claimName': 'p-v'}}]}
    await admin.create(PODS, {'metadata': {'name': 'q', 'namespace': 'default'}, 'spec': again})
    text = 'Multi-Attach error for volume "disk" Volume is already used by pod(s) p'
    await until(lambda: told(admin, 'FailedAttachVolume', text))
    await admin.delete(PODS, 'q', 'default', grace_period_s=0)
    await admin.delete(PODS, 'p', 'default', grace_period_s=0)

    async def detached() -> bool:
        return await exists(admin, VOLUMEATTACHMENTS, name) is None

    await until(detached)


def request(common: str, *groups: str, usages: tuple[str, ...], signer: str) -> tuple[dict, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    names += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, g) for g in groups]
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names)).sign(key, hashes.SHA256())
    pem = base64.b64encode(csr.public_bytes(serialization.Encoding.PEM)).decode()
    return {'spec': {'request': pem, 'signerName': signer, 'usages': [*usages], 'expirationSeconds': 3600}}, key


@pytest.fixture
def signing(tmp_path):
    """An authority of its own: certificate and key files."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, 'signer')])
    start = datetime.now(UTC) - timedelta(hours=1)
    cert = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(start).not_valid_after(start + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    )  # fmt: skip
    (tmp_path / 's.crt').write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / 's.key').write_bytes(key.private_bytes(*pem))
    paths = {'cluster_signing_cert_file': tmp_path / 's.crt', 'cluster_signing_key_file': tmp_path / 's.key'}
    return cert, paths


async def test_requests_are_approved_signed_refused_and_cleared(admin, controllers, until, signing):
    authority, paths = signing
    await controllers('csrapproving', 'csrsigning', 'csrcleaner', **paths)
    client = ('digital signature', 'key encipherment', 'client auth')
    node, key = request(
        'system:node:n9', 'system:nodes', usages=client, signer='kubernetes.io/kube-apiserver-client-kubelet'
    )
    person, _ = request('jane', usages=client, signer='kubernetes.io/kube-apiserver-client')
    rogue, _ = request('eve', usages=client, signer='kubernetes.io/kubelet-serving')
    for name, body in (('node', node), ('jane', person), ('eve', rogue)):
        made = await admin.create(CERTIFICATESIGNINGREQUESTS, {'metadata': {'name': name}, **body})
        if name != 'node':
            approved = {'type': 'Approved', 'status': 'True', 'reason': 'ByHand', 'message': 'ok'}
            made['status'] = {'conditions': [approved]}
            await admin.update(CERTIFICATESIGNINGREQUESTS, made, subresource='approval')

    async def issued(name: str):
        held = (await admin.get(CERTIFICATESIGNINGREQUESTS, name)).get('status') or {}
        return held.get('certificate')

    async def refused() -> bool:
        held = (await admin.get(CERTIFICATESIGNINGREQUESTS, 'eve'))['status']['conditions']
        return any(c['type'] == 'Failed' and 'subject organization' in c['message'] for c in held)

    cert = x509.load_pem_x509_certificate(base64.b64decode(await until(lambda: issued('node'))))
    cert.verify_directly_issued_by(authority)
    assert cert.public_key() == key.public_key()
    assert cert.not_valid_after_utc - datetime.now(UTC) < timedelta(seconds=3700)
    await until(lambda: issued('jane'))
    await until(refused)


async def test_an_aggregated_role_has_the_rules_of_its_parts(admin, controllers, until):
    await controllers('clusterrole-aggregation')
    rule = {'apiGroups': ['example.com'], 'resources': ['widgets'], 'verbs': ['get']}
    selectors = [{'matchLabels': {'to': 'sum'}}]
    whole = {'metadata': {'name': 'sum'}, 'aggregationRule': {'clusterRoleSelectors': selectors}, 'rules': []}
    await admin.create(CLUSTERROLES, whole)
    await admin.create(CLUSTERROLES, {'metadata': {'name': 'part', 'labels': {'to': 'sum'}}, 'rules': [rule]})

    async def rules(wanted: list) -> bool:
        return ((await admin.get(CLUSTERROLES, 'sum')).get('rules') or []) == wanted

    await until(lambda: rules([rule]))
    await admin.delete(CLUSTERROLES, 'part')
    await until(lambda: rules([]))


async def test_a_token_secret_is_filled_and_goes_with_its_account(admin, controllers, until, exists):
    await controllers('serviceaccount-token')
    await admin.create(SERVICEACCOUNTS, {'metadata': {'name': 'robot', 'namespace': 'default'}})
    meta = {'name': 't', 'namespace': 'default', 'annotations': {'kubernetes.io/service-account.name': 'robot'}}
    await admin.create(SECRETS, {'metadata': meta, 'type': 'kubernetes.io/service-account-token'})

    async def filled() -> bool:
        data = (await admin.get(SECRETS, 't', 'default')).get('data') or {}
        return {'token', 'ca.crt', 'namespace'} <= data.keys()

    await until(filled)
    await admin.delete(SERVICEACCOUNTS, 'robot', 'default')

    async def gone() -> bool:
        return await exists(admin, SECRETS, 't', 'default') is None

    await until(gone)


async def test_bootstrap_tokens_sign_the_cluster_and_expire(admin, controllers, until, exists):
    with contextlib.suppress(AlreadyExists):
        await admin.create(NAMESPACES, {'metadata': {'name': 'kube-public'}})
    await controllers('bootstrap-signer', 'token-cleaner')
    info = {'metadata': {'name': 'cluster-info', 'namespace': 'kube-public'}, 'data': {'kubeconfig': 'content'}}
    await admin.create(CONFIGMAPS, info)
    for number, left_s in (('aaaaaa', 3600), ('bbbbbb', -1)):
        data = {'token-id': number, 'token-secret': f'{MARK}000000', 'usage-bootstrap-signing': 'true',
                'expiration': format_time(datetime.now(UTC) + timedelta(seconds=left_s))}  # fmt: skip
        meta = {'name': f'bootstrap-token-{number}', 'namespace': 'kube-system'}
        await admin.create(SECRETS, {'metadata': meta, 'type': 'bootstrap.kubernetes.io/token', 'stringData': data})

    async def signed() -> bool:
        data = (await admin.get(CONFIGMAPS, 'cluster-info', 'kube-public'))['data']
        keys = {k: v for k, v in data.items() if k.startswith('jws-')}
        return keys == {'jws-kubeconfig-aaaaaa': detached_signature('content', 'aaaaaa', f'{MARK}000000')}

    async def cleared() -> bool:
        return await exists(admin, SECRETS, 'bootstrap-token-bbbbbb', 'kube-system') is None

    await until(signed)
    await until(cleared)


async def test_endpoints_written_by_hand_are_mirrored_and_nodes_have_a_ttl(admin, controllers, until):
    await controllers('endpointslicemirroring', 'ttl', 'gc')
    await admin.create(NODES, {'metadata': {'name': 'n1'}})
    service = {'metadata': {'name': 'db', 'namespace': 'default'}, 'spec': {'ports': [{'port': 1}]}}
    await admin.create(SERVICES, service)
    subsets = [{'addresses': [{'ip': '192.0.2.1'}, {'ip': '2001:db8::1'}], 'ports': [{'port': 5432}]}]
    await admin.create(ENDPOINTS, {'metadata': {'name': 'db', 'namespace': 'default'}, 'subsets': subsets})

    async def mirrored(*wanted: tuple[str, str]) -> bool:
        found = [
            (s['addressType'], s['endpoints'][0]['addresses'][0])
            for s in (await admin.list(ENDPOINTSLICES, 'default')).items
            if labels_of(s).get('kubernetes.io/service-name') == 'db'
        ]
        return sorted(found) == sorted(wanted)

    await until(lambda: mirrored(('IPv4', '192.0.2.1'), ('IPv6', '2001:db8::1')))
    subsets[0]['addresses'] = [{'ip': '192.0.2.9'}]
    await admin.patch(ENDPOINTS, 'db', {'subsets': subsets}, 'default')
    await until(lambda: mirrored(('IPv4', '192.0.2.9')))
    await admin.delete(ENDPOINTS, 'db', 'default')
    await until(mirrored)

    async def ttl() -> bool:
        return annotations_of(await admin.get(NODES, 'n1')).get('node.alpha.kubernetes.io/ttl') == '0'

    await until(ttl)
