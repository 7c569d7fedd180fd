"""What `kubectl get -o wide` shows where it is more than a field. Source: pkg/printers/internalversion/printers.go."""

from datetime import UTC, datetime

import pytest

from kapi.kinds import GOVERNING, KINDS
from kapi.registry.table import cells, columns_of, row

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR_AGO, DAY_AGO = '2026-01-01T11:00:00Z', '2025-12-31T12:00:00Z'
BY_NAME = {(k.resource.group, k.resource.version, k.resource.plural): k for k in (*KINDS, *GOVERNING)}


def kind_of(name):
    group, version, plural = name.split('/')
    return BY_NAME[group, version, plural]


def shown(name, **fields):
    """Cells by the names of their columns."""
    kind = kind_of(name)
    obj = {'metadata': {'name': 'x', 'namespace': 'n', 'creationTimestamp': DAY_AGO}, **fields}
    return dict(zip((c.name for c in columns_of(kind)), cells(kind, obj, NOW), strict=True))


def address(*entries):
    return {'loadBalancer': {'ingress': list(entries)}}


def hosts(*names):
    return {'rules': [{'host': name} if name else {} for name in names]}


def metric(kind, target, **more):
    source = kind[0].lower() + kind[1:]
    return {'type': kind, source: {'target': target, **more}}


def measured(kind, **current):
    return {'type': kind, kind[0].lower() + kind[1:]: {'current': current}}


HPA = 'autoscaling/v2/horizontalpodautoscalers'
CSR = 'certificates.k8s.io/v1/certificatesigningrequests'
LEVEL = 'flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations'
BINDING = 'admissionregistration.k8s.io/v1/validatingadmissionpolicybindings'
CASES = [
    ('/v1/services', {'spec': {'type': 'LoadBalancer'}}, 'External-IP', '<pending>'),
    ('/v1/services', {'spec': {'type': 'LoadBalancer', 'externalIPs': ['10.0.0.9']},
                      'status': address({'ip': '10.0.0.2'}, {'hostname': 'a.example'}, {'ip': '10.0.0.2'})},
     'External-IP', '10.0.0.2,a.example,10.0.0.9'),
    ('/v1/services', {'spec': {'type': 'ExternalName', 'externalName': 'a.example'}}, 'External-IP', 'a.example'),
    ('/v1/services', {'spec': {'type': 'NodePort', 'ports': [{'port': 80, 'nodePort': 30080, 'protocol': 'TCP'}]}},
     'Port(s)', '80:30080/TCP'),
    ('/v1/endpoints', {}, 'Endpoints', '<none>'),
    ('/v1/endpoints', {'subsets': [{'notReadyAddresses': [{'ip': '1.2.3.4'}], 'ports': [{'port': 80}]}]},
     'Endpoints', ''),
    ('/v1/endpoints', {'subsets': [{'addresses': [{'ip': f'10.0.0.{i}'} for i in range(4)], 'ports': [{'port': 80}]}]},
     'Endpoints', '10.0.0.0:80,10.0.0.1:80,10.0.0.2:80 + 1 more...'),
    ('discovery.k8s.io/v1/endpointslices', {'ports': [{'name': '', 'port': None}]}, 'Ports', '<unset>'),
    ('discovery.k8s.io/v1/endpointslices', {'ports': [{}]}, 'Ports', '*'),
    ('/v1/persistentvolumeclaims', {'spec': {'volumeName': 'pv'}}, 'Capacity', '0'),
    ('/v1/persistentvolumeclaims', {'status': {'capacity': {'storage': '1Gi'}}}, 'Capacity', ''),
    ('/v1/persistentvolumes', {'spec': {'accessModes': ['ReadWriteMany', 'ReadWriteOnce', 'ReadWriteMany']}},
     'Access Modes', 'RWO,RWX'),
    ('/v1/secrets', {}, 'Type', ''),
    ('/v1/events', {'firstTimestamp': HOUR_AGO, 'eventTime': DAY_AGO}, 'Last Seen', '60m'),
    ('/v1/events', {'lastTimestamp': HOUR_AGO, 'series': {'lastObservedTime': DAY_AGO}}, 'Last Seen', '24h'),
    ('/v1/events', {'eventTime': HOUR_AGO}, 'First Seen', '60m'),
    ('/v1/events', {'series': {'count': 7}, 'count': 3}, 'Count', 7),
    ('/v1/events', {}, 'Subobject', ''),
    ('coordination.k8s.io/v1/leases', {'spec': {}}, 'Holder', ''),
    ('networking.k8s.io/v1/ingresses', {'spec': hosts('a', 'b', 'c')}, 'Hosts', 'a,b,c'),
    ('networking.k8s.io/v1/ingresses', {'spec': hosts('a', 'b', 'c', '', 'd')}, 'Hosts', 'a,b,c + 2 more...'),
    ('networking.k8s.io/v1/ingresses', {'spec': hosts('')}, 'Hosts', '*'),
    ('networking.k8s.io/v1/ingresses', {'status': address({'hostname': 'b'}, {'ip': '10.0.0.1'}, {})}, 'Address',
     '10.0.0.1,b'),
    ('storage.k8s.io/v1/csidrivers', {'spec': {}}, 'Modes', '<none>'),
    ('batch/v1/cronjobs', {'spec': {}}, 'Timezone', '<none>'),
    ('batch/v1/cronjobs', {'spec': {'suspend': True}}, 'Suspend', 'True'),
    ('batch/v1/jobs', {'spec': {'parallelism': 3}, 'status': {'succeeded': 1}}, 'Completions', '1/1 of 3'),
    ('batch/v1/jobs', {'status': {'startTime': DAY_AGO, 'completionTime': HOUR_AGO}}, 'Duration', '23h'),
    (CSR, {}, 'Condition', 'Pending'),
    (CSR, {'status': {'conditions': [{'type': 'Failed'}]}}, 'Condition', 'Pending,Failed'),
    (CSR, {'status': {'conditions': [{'type': 'Approved'}, {'type': 'Denied'}]}}, 'Condition', 'Denied'),
    (CSR, {'status': {'conditions': [{'type': 'Approved'}], 'certificate': 'eA=='}}, 'Condition', 'Approved,Issued'),
    (CSR, {'spec': {'expirationSeconds': 3600}}, 'RequestedDuration', '60m'),
    (LEVEL, {'spec': {'type': 'Exempt', 'exempt': {'nominalConcurrencyShares': 5}}}, 'NominalConcurrencyShares',
     '<none>'),
    (LEVEL, {'spec': {'limited': {'nominalConcurrencyShares': 0}}}, 'NominalConcurrencyShares', 0),
    (BINDING, {'spec': {'paramRef': {'name': 'p'}}}, 'ParamRef', '*/p'),
    (BINDING, {'spec': {'paramRef': {'name': 'p', 'namespace': 'n'}}}, 'ParamRef', 'n/p'),
    ('apiregistration.k8s.io/v1/apiservices', {'status': {'conditions': [{'type': 'Available', 'status': 'False'}]}},
     'Available', 'False'),
    (HPA, {'spec': {'metrics': []}}, 'Targets', '<none>'),
    (HPA, {'spec': {'metrics': [metric('Resource', {'averageUtilization': 80}, name='cpu')]}}, 'Targets',
     'cpu: <unknown>/80%'),
    (HPA, {'spec': {'metrics': [metric('Resource', {'averageValue': '1Gi'}, name='memory')]},
           'status': {'currentMetrics': [measured('Resource', averageUtilization=30, averageValue='300Mi')]}},
     'Targets', 'memory: 300Mi/1Gi'),
    (HPA, {'spec': {'metrics': [metric('External', {'averageValue': '30'}), metric('Object', {'value': '2k'})]},
           'status': {'currentMetrics': [measured('External', averageValue='4', value='8'),
                                         measured('Object', value='1k')]}},
     'Targets', '4/30 (avg), 1k/2k'),
    (HPA, {'spec': {'metrics': [metric('Pods', {'averageValue': '5'})] * 3}}, 'Targets',
     '<unknown>/5, <unknown>/5 + 1 more...'),
]  # fmt: skip


@pytest.mark.parametrize(('name', 'fields', 'column', 'expected'), CASES)
def test_a_cell_says_what_upstreams_says(name, fields, column, expected):
    assert shown(name, **fields)[column] == expected


def test_a_finished_pods_row_says_that_it_is_completed():
    kind = kind_of('/v1/pods')
    told = {'type': 'Completed', 'status': 'True', 'reason': 'Failed', 'message': 'The pod failed.'}
    failed = {'metadata': {'name': 'x'}, 'status': {'phase': 'Failed'}}
    assert row(kind, failed, NOW, 'None')['conditions'] == [told]
    assert 'conditions' not in row(kind, {'metadata': {'name': 'x'}, 'status': {'phase': 'Running'}}, NOW, 'None')


def test_columns_have_upstreams_types():
    """Those that one would not guess from their cells."""
    kinds = {name: {c.name: (c.type, c.format) for c in columns_of(kind_of(name))} for name in (
        HPA, LEVEL, 'apps/v1/controllerrevisions', 'storage.k8s.io/v1/storageclasses',
        'storage.k8s.io/v1/volumeattachments', 'storage.k8s.io/v1/csistoragecapacities')}  # fmt: skip
    assert kinds[HPA]['MaxPods'] == kinds[HPA]['Replicas'] == kinds[LEVEL]['Queues'] == ('string', '')
    assert kinds['apps/v1/controllerrevisions']['Revision'] == ('string', '')
    assert kinds['storage.k8s.io/v1/storageclasses']['AllowVolumeExpansion'] == ('string', '')
    assert kinds['storage.k8s.io/v1/volumeattachments']['Attacher'] == ('string', 'name')
    assert list(kinds['storage.k8s.io/v1/csistoragecapacities']) == ['Name', 'Created At']
