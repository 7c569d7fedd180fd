"""No hot loops: once a cluster with something for every controller has converged, hours bring no further write."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections import Counter

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kcontrol.controllers import CONTROLLERS
from kcontrol.controllers.horizontalpodautoscaler import metrics
from kcontrol.kinds import (
    CERTIFICATESIGNINGREQUESTS,
    CLUSTERROLES,
    CRONJOBS,
    DAEMONSETS,
    HORIZONTALPODAUTOSCALERS,
    JOBS,
    PODDISRUPTIONBUDGETS,
    REPLICATIONCONTROLLERS,
    RESOURCEQUOTAS,
    STATEFULSETS,
    STORAGECLASSES,
)
from kcore.meta.gvk import (
    CONFIGMAPS,
    DEPLOYMENTS,
    ENDPOINTS,
    NAMESPACES,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    PODS,
    REPLICASETS,
    SECRETS,
    SERVICES,
    Resource,
)
from kcore.meta.objects import get_path
from kcore.meta.times import format_time
from tests.hush import MARK
from tests.kcontrol.virtual import Nodes, Plane, run_virtually

CONTAINERS = [{'name': 'c', 'image': 'x', 'resources': {'requests': {'cpu': '100m'}}}]
CLAIM = {'accessModes': ['ReadWriteOnce'], 'resources': {'requests': {'storage': '1Gi'}}, 'storageClassName': 'none'}
HOUR_S = 3600.0


def template(app: str, **spec) -> dict:
    return {'metadata': {'labels': {'app': app}}, 'spec': {'containers': CONTAINERS, **spec}}


def workload(app: str, **spec) -> dict:
    return {'selector': {'matchLabels': {'app': app}}, 'template': template(app), **spec}


def signing_request() -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, 'someone')])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject)
    pem = made.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return base64.b64encode(pem).decode()


def volume(name: str) -> dict:
    spec = {'capacity': {'storage': '1Gi'}, 'accessModes': ['ReadWriteOnce'], 'storageClassName': 'none'}
    return {'metadata': {'name': name}, 'spec': {**spec, 'hostPath': {'path': f'/{name}'}}}


def everything() -> list[tuple[Resource, dict]]:
    """Something for every controller; names in namespace `team` unless cluster-wide."""
    job = {'template': {'spec': {'restartPolicy': 'Never', 'containers': CONTAINERS}}}
    target = {'apiVersion': 'apps/v1', 'kind': 'Deployment', 'name': 'web'}
    ephemeral = {'name': 'own', 'ephemeral': {'volumeClaimTemplate': {'spec': CLAIM}}}
    subsets = [{'addresses': [{'ip': '10.9.9.9'}], 'ports': [{'port': 80}]}]
    port = [{'port': 80}]
    wide = [
        (NAMESPACES, {'metadata': {'name': 'team'}}),
        (STORAGECLASSES, {'metadata': {'name': 'none'}, 'provisioner': 'kubernetes.io/no-provisioner'}),
        *((PERSISTENTVOLUMES, volume(f'v{n}')) for n in range(4)),
        (CLUSTERROLES, {
            'metadata': {'name': 'sum'}, 'rules': [],
            'aggregationRule': {'clusterRoleSelectors': [{'matchLabels': {'part': 'yes'}}]},
        }),
        (CLUSTERROLES, {
            'metadata': {'name': 'part', 'labels': {'part': 'yes'}},
            'rules': [{'apiGroups': [''], 'resources': ['pods'], 'verbs': ['get']}],
        }),
        (CERTIFICATESIGNINGREQUESTS, {'metadata': {'name': 'ask'}, 'spec': {
            'request': signing_request(), 'usages': ['client auth'],
            'signerName': 'kubernetes.io/kube-apiserver-client',
        }}),
        (SECRETS, {
            'metadata': {'name': 'bootstrap-token-abcdef', 'namespace': 'kube-system'},
            'type': 'bootstrap.kubernetes.io/token',
            'stringData': {
                'token-id': 'abcdef', 'token-secret': f'{MARK}abcdef', 'usage-bootstrap-signing': 'true',
            },
        }),
        (CONFIGMAPS, {'metadata': {'name': 'cluster-info', 'namespace': 'kube-public'}, 'data': {'kubeconfig': 'x'}}),
    ]  # fmt: skip
    inside = [
        (DEPLOYMENTS, 'web', {'spec': workload('web', replicas=2)}),
        (REPLICASETS, 'rs', {'spec': workload('rs', replicas=2)}),
        (REPLICATIONCONTROLLERS, 'rc', {'spec': {
            'replicas': 2, 'selector': {'app': 'rc'}, 'template': template('rc'),
        }}),
        (DAEMONSETS, 'ds', {'spec': workload('ds')}),
        (STATEFULSETS, 'db', {'spec': workload('db', replicas=2, serviceName='web', volumeClaimTemplates=[
            {'metadata': {'name': 'data'}, 'spec': CLAIM},
        ])}),
        (JOBS, 'once', {'spec': {**job, 'completions': 2}}),
        (JOBS, 'brief', {'spec': {**job, 'ttlSecondsAfterFinished': 60}}),
        (JOBS, 'for-ever', {'spec': job}),
        (CRONJOBS, 'yearly', {'spec': {'schedule': '0 0 1 1 *', 'jobTemplate': {'spec': job}}}),
        (SERVICES, 'web', {'spec': {'selector': {'app': 'web'}, 'ports': port}}),
        (SERVICES, 'foreign', {'spec': {'ports': port}}),
        (ENDPOINTS, 'foreign', {'subsets': subsets}),
        (PODDISRUPTIONBUDGETS, 'web', {'spec': {'minAvailable': 1, 'selector': {'matchLabels': {'app': 'web'}}}}),
        (RESOURCEQUOTAS, 'all', {'spec': {'hard': {'pods': '50', 'requests.cpu': '50'}}}),
        (HORIZONTALPODAUTOSCALERS, 'web', {'spec': {
            'scaleTargetRef': target, 'minReplicas': 2, 'maxReplicas': 4,
            'metrics': [{'type': 'Resource', 'resource': {
                'name': 'cpu', 'target': {'type': 'Utilization', 'averageUtilization': 100},
            }}],
        }}),
        (PERSISTENTVOLUMECLAIMS, 'mine', {'spec': CLAIM}),
        (PODS, 'with-own', {'spec': {'containers': CONTAINERS, 'volumes': [ephemeral]}}),
        (SECRETS, 'legacy', {'type': 'kubernetes.io/service-account-token'}),
        (CONFIGMAPS, 'left', {}),
    ]  # fmt: skip
    more = {
        'legacy': {'annotations': {'kubernetes.io/service-account.name': 'default'}},
        'left': {'ownerReferences': [{'apiVersion': 'v1', 'kind': 'Pod', 'name': 'gone', 'uid': 'gone'}]},
    }
    return wide + [
        (r, {'metadata': {'name': name, 'namespace': 'team', **more.get(name, {})}, **body}) for r, name, body in inside
    ]


async def writes(plane: Plane, seconds: float, most: int) -> Counter[str]:
    """Paths that the manager writes to within so many seconds; ends early once there are more than `most` writes."""
    found: Counter[str] = Counter()
    over = asyncio.Event()

    def seen(agent: str, path: str) -> None:
        if agent == 'manager':
            found[path] += 1
            if found.total() > most:
                over.set()

    plane.on_write = seen
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await over.wait()
    return found


async def pretended_usage(client, path, selector, metric=None):
    pods = (await client.list(PODS, 'team', label_selector=selector)).items
    stamp = format_time(client.env.clock.wall())
    item = {'timestamp': stamp, 'window': '30s', 'containers': [{'name': 'c', 'usage': {'cpu': '100m'}}]}
    return {'items': [{'metadata': {'name': p['metadata']['name']}, **item} for p in pods]}


def test_when_every_controller_has_converged_an_hour_passes_without_a_write(pki, monkeypatch):
    monkeypatch.setattr(metrics, '_get', pretended_usage)

    async def scenario(plane: Plane) -> None:
        nodes = await Nodes(plane).start('a')
        nodes.finish = lambda pod: 'Succeeded' if get_path(pod, 'spec.restartPolicy') == 'Never' else None
        runner = await plane.controllers()
        assert len(runner.debug()) == len(CONTROLLERS)
        for resource, obj in everything():
            await plane.admin.create(resource, obj)
        approved = {'type': 'Approved', 'status': 'True', 'reason': 'x', 'message': 'x'}
        change = {'status': {'conditions': [approved]}}
        await plane.admin.patch(CERTIFICATESIGNINGREQUESTS, 'ask', change, subresource='approval')
        busy = await writes(plane, 1.2 * HOUR_S, most=500)  # the cleaner takes an issued request after an hour
        assert busy.total() <= 500, busy.most_common(5)
        found = (await plane.admin.list(DEPLOYMENTS, 'team')).items
        assert get_path(found[0], 'status.availableReplicas') == 2
        assert {j['metadata']['name'] for j in (await plane.admin.list(JOBS, 'team')).items} == {'once', 'for-ever'}
        assert get_path(await plane.admin.get(STATEFULSETS, 'db', 'team'), 'status.readyReplicas') == 2
        assert 'left' not in {m['metadata']['name'] for m in (await plane.admin.list(CONFIGMAPS, 'team')).items}
        assert await writes(plane, HOUR_S, most=0) == {}

    run_virtually(scenario, pki, monkeypatch)


def test_a_rolling_stateful_set_hardly_ever_writes_against_what_it_has_just_written_itself(pki, monkeypatch):
    async def scenario(plane: Plane) -> None:
        await Nodes(plane).start('a')
        await plane.controllers('statefulset', 'deployment', 'replicaset')
        meta = {'name': 'db', 'namespace': 'default'}
        await plane.admin.create(STATEFULSETS, {'metadata': meta, 'spec': workload('db', replicas=5, serviceName='x')})

        async def rolled() -> bool:
            status = (await plane.admin.get(STATEFULSETS, 'db', 'default')).get('status') or {}
            return status.get('updatedReplicas') == status.get('readyReplicas') == 5 and (
                status['currentRevision'] == status['updateRevision']
            )

        await plane.until(rolled)
        for image in ('y', 'z'):
            change = {'spec': {'template': {'spec': {'containers': [{'name': 'c', 'image': image}]}}}}
            await plane.admin.patch(STATEFULSETS, 'db', change, 'default', kind='strategic')
            await asyncio.sleep(2)
            await plane.until(rolled)
        conflicts = [path for agent, code, path in plane.refused if (agent, code) == ('manager', 409)]
        assert len(conflicts) <= 2, 'somebody else may write in between; the controller itself does not'

    run_virtually(scenario, pki, monkeypatch)
