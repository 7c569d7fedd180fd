"""The official Python client reads what the server shows of the barest objects: its models refuse a missing number."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

Obj = dict[str, Any]
POD: Obj = {'metadata': {'labels': {'a': 'b'}}, 'spec': {'containers': [{'name': 'c', 'image': 'i'}]}}
ONCE: Obj = {'spec': {'restartPolicy': 'Never', 'containers': [{'name': 'c', 'image': 'i'}]}}
WORKLOAD: Obj = {'spec': {'selector': {'matchLabels': {'a': 'b'}}, 'template': POD, 'serviceName': 's'}}
STORAGE: Obj = {'accessModes': ['ReadWriteOnce'], 'resources': {'requests': {'storage': '1Gi'}}}
VOLUME: Obj = {'accessModes': ['ReadWriteOnce'], 'capacity': {'storage': '1Gi'}, 'hostPath': {'path': '/x'}}
TARGET: Obj = {'maxReplicas': 2, 'scaleTargetRef': {'kind': 'Deployment', 'name': 'd', 'apiVersion': 'apps/v1'}}
PEER: Obj = {'defaultBackend': {'service': {'name': 's', 'port': {'number': 80}}}}
SPACE = 'namespaces/default/'
BAREST: dict[str, Obj] = {
    f'api/v1/{SPACE}pods': {'spec': POD['spec']},
    f'api/v1/{SPACE}services': {'spec': {'ports': [{'port': 80}]}},
    f'api/v1/{SPACE}endpoints': {},
    f'api/v1/{SPACE}configmaps': {},
    f'api/v1/{SPACE}secrets': {},
    f'api/v1/{SPACE}podtemplates': {'template': POD},
    f'api/v1/{SPACE}limitranges': {'spec': {'limits': [{'type': 'Pod'}]}},
    f'api/v1/{SPACE}resourcequotas': {'spec': {'hard': {'pods': '9'}}},
    f'api/v1/{SPACE}replicationcontrollers': {'spec': {'selector': {'a': 'b'}, 'template': POD}},
    f'api/v1/{SPACE}persistentvolumeclaims': {'spec': STORAGE},
    'api/v1/persistentvolumes': {'spec': VOLUME},
    'api/v1/nodes': {},
    'api/v1/namespaces': {},
    f'apis/apps/v1/{SPACE}deployments': WORKLOAD,
    f'apis/apps/v1/{SPACE}replicasets': WORKLOAD,
    f'apis/apps/v1/{SPACE}statefulsets': WORKLOAD,
    f'apis/apps/v1/{SPACE}daemonsets': WORKLOAD,
    f'apis/apps/v1/{SPACE}controllerrevisions': {'revision': 1, 'data': {}},
    f'apis/batch/v1/{SPACE}jobs': {'spec': {'template': ONCE}},
    f'apis/batch/v1/{SPACE}cronjobs': {'spec': {'schedule': '0 0 * * *', 'jobTemplate': {'spec': {'template': ONCE}}}},
    f'apis/autoscaling/v2/{SPACE}horizontalpodautoscalers': {'spec': TARGET},
    f'apis/policy/v1/{SPACE}poddisruptionbudgets': {'spec': {'minAvailable': 1}},
    f'apis/networking.k8s.io/v1/{SPACE}ingresses': {'spec': PEER},
    f'apis/networking.k8s.io/v1/{SPACE}networkpolicies': {'spec': {'podSelector': {}}},
    'apis/networking.k8s.io/v1/ingressclasses': {'spec': {'controller': 'a.b/c'}},
    f'apis/discovery.k8s.io/v1/{SPACE}endpointslices': {'addressType': 'IPv4', 'endpoints': []},
    f'apis/coordination.k8s.io/v1/{SPACE}leases': {},
    f'apis/rbac.authorization.k8s.io/v1/{SPACE}roles': {},
    'apis/scheduling.k8s.io/v1/priorityclasses': {'value': 1},
    'apis/node.k8s.io/v1/runtimeclasses': {'handler': 'h'},
    'apis/storage.k8s.io/v1/storageclasses': {'provisioner': 'a.b/c'},
    'apis/storage.k8s.io/v1/csidrivers': {'spec': {}},
    'apis/storage.k8s.io/v1/csinodes': {'spec': {'drivers': []}},
    'apis/storage.k8s.io/v1/volumeattachments': {
        'spec': {'attacher': 'x', 'nodeName': 'n', 'source': {'persistentVolumeName': 'v'}}
    },
    'apis/flowcontrol.apiserver.k8s.io/v1/flowschemas': {
        'spec': {'priorityLevelConfiguration': {'name': 'exempt'}, 'matchingPrecedence': 100}
    },
    'apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations': {
        'spec': {'type': 'Limited', 'limited': {'limitResponse': {'type': 'Reject'}}}
    },
}


def lists_of(client: Any, api: Any) -> dict[str, Any]:
    """Every list method of every group that needs no argument but a namespace."""
    found = {}
    for group in (n for n in dir(client) if n.endswith('Api') and n != 'CustomObjectsApi'):
        methods = getattr(client, group)(api)
        for name in dir(methods):
            if name.startswith('list_') and not name.endswith(('_with_http_info', '_without_preload_content')):
                found[f'{group}.{name}'] = getattr(methods, name)
    return found


async def test_every_list_of_the_official_client_is_read(world, api, authority):
    client = pytest.importorskip('kubernetes.client')
    await api.post('/api/v1/namespaces/default/serviceaccounts', {'metadata': {'name': 'default'}})
    for path, obj in BAREST.items():
        made = await api.post(f'/{path}', {'metadata': {'name': 'x'}, **obj})
        assert made.status == 201, (path, made.text)
    cert, key = authority.issue('user-admin-system-masters', 'admin', 'system:masters')
    settings = client.Configuration()
    settings.host, settings.ssl_ca_cert = world.base, str(Path(authority.directory) / 'ca.crt')
    settings.cert_file, settings.key_file = str(cert), str(key)
    with client.ApiClient(settings) as connection:
        read = 0
        for name, call in lists_of(client, connection).items():
            try:
                await asyncio.to_thread(call, *(('default',) if 'namespaced' in name else ()))
            except client.ApiException as e:
                if e.status != 404:  # 404: a group or version that is not served
                    raise
            else:
                read += 1
        deployment = await asyncio.to_thread(client.AppsV1Api(connection).read_namespaced_deployment, 'x', 'default')
    assert read > 80
    assert deployment.status.ready_replicas is None, 'there is a status, and it says nothing yet'
