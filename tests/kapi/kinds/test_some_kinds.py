"""Single rules, defaults and cells of kinds other than Pod."""

import base64
import copy
from datetime import UTC, datetime

import pytest

from kapi.kinds import GOVERNING, KINDS
from tests.hush import MARK

NOW = datetime(2026, 1, 1, 1, tzinfo=UTC)
BY_PLURAL = {k.resource.plural: k for k in (*KINDS, *GOVERNING) if k.alias is None}
TEMPLATE = {'metadata': {'labels': {'a': 'b'}}, 'spec': {'containers': [{'name': 'c', 'image': 'i'}]}}
SELECTOR = {'matchLabels': {'a': 'b'}}


def made(plural, **fields):
    obj = {'metadata': {'name': 'x', 'namespace': 'n', 'uid': 'u'}, **copy.deepcopy(fields)}
    strategy = BY_PLURAL[plural].strategy
    strategy.default(obj)
    strategy.prepare(obj, None)
    strategy.default(obj)
    return obj


def broken(plural, obj, old=None):
    return [(i.field, i.message) for i in BY_PLURAL[plural].strategy.validate(obj, old)]


def cells(plural, obj):
    return {c.name: c.value(obj, NOW) if callable(c.value) else None for c in BY_PLURAL[plural].columns}


def test_a_deployment_rolls_by_a_quarter():
    spec = made('deployments', spec={'selector': SELECTOR, 'template': TEMPLATE})['spec']
    assert spec['strategy'] == {'type': 'RollingUpdate', 'rollingUpdate': {'maxUnavailable': '25%', 'maxSurge': '25%'}}
    assert (spec['replicas'], spec['revisionHistoryLimit'], spec['progressDeadlineSeconds']) == (1, 10, 600)


def test_a_selector_must_match_its_template_and_never_change():
    good = made('deployments', spec={'selector': SELECTOR, 'template': TEMPLATE})
    assert broken('deployments', good) == []
    other = copy.deepcopy(good)
    other['spec']['selector'] = {'matchLabels': {'x': 'y'}}
    assert broken('deployments', other, good) == [
        ('spec.template.metadata.labels', 'Invalid value: {"a":"b"}: `selector` does not match template `labels`'),
        ('spec.selector', 'Invalid value: {"matchLabels":{"x":"y"}}: field is immutable'),
    ]


def test_a_statefulset_changes_only_what_upstream_allows():
    good = made('statefulsets', spec={'selector': SELECTOR, 'template': TEMPLATE, 'serviceName': 's'})
    new = copy.deepcopy(good)
    new['spec']['replicas'] = 3
    assert broken('statefulsets', new, good) == []
    new['spec']['serviceName'] = 't'
    assert broken('statefulsets', new, good)[0][1].startswith('Forbidden: updates to statefulset spec for fields other')


def test_a_job_finds_its_pods_by_its_uid():
    job = made('jobs', spec={'template': {'spec': {**TEMPLATE['spec'], 'restartPolicy': 'Never'}}})
    assert job['spec']['selector'] == {'matchLabels': {'batch.kubernetes.io/controller-uid': 'u'}}
    assert job['spec']['template']['metadata']['labels']['job-name'] == 'x'
    assert (job['spec']['completions'], job['spec']['parallelism'], job['spec']['backoffLimit']) == (1, 1, 6)
    assert broken('jobs', job) == []


def test_a_job_says_how_far_it_is():
    job = made('jobs', spec={'completions': 3, 'template': {}})
    job['status'] = {'succeeded': 1, 'startTime': '2026-01-01T00:59:00Z'}
    found = cells('jobs', job)
    assert (found['Status'], found['Completions'], found['Duration']) == ('Running', '1/3', '60s')
    job['status'] |= {'conditions': [{'type': 'Complete', 'status': 'True'}], 'completionTime': '2026-01-01T00:59:30Z'}
    found = cells('jobs', job)
    assert (found['Status'], found['Duration']) == ('Complete', '30s')


def test_a_secret_folds_string_data_in():
    secret = made('secrets', stringData={'a': MARK}, data={'a': 'x', 'c': 'YQ=='})
    assert secret['data'] == {'a': base64.b64encode(MARK.encode()).decode(), 'c': 'YQ=='}
    assert secret['type'] == 'Opaque'
    assert 'stringData' not in secret


def test_a_tls_secret_needs_both_halves():
    assert [f for f, _ in broken('secrets', made('secrets', type='kubernetes.io/tls'))] == [
        'data[tls.crt]',
        'data[tls.key]',
    ]


@pytest.mark.parametrize('plural', ['configmaps', 'secrets'])
def test_what_is_immutable_stays_as_it_is(plural):
    old = made(plural, immutable=True, data={'a': 'YQ=='})
    new = made(plural, immutable=False, data={'a': 'Yg=='})
    text = 'Forbidden: field is immutable when `immutable` is set'
    assert broken(plural, new, old) == [('immutable', text), ('data', text)]


def test_a_service_shows_and_keeps_its_address():
    service = made(
        'services', spec={'ports': [{'port': 80, 'nodePort': 30080}], 'type': 'NodePort', 'clusterIP': '127.96.0.5'}
    )
    assert service['spec']['clusterIPs'] == ['127.96.0.5']
    found = cells('services', service)
    assert (found['Cluster-IP'], found['External-IP'], found['Port(s)']) == ('127.96.0.5', '<none>', '80:30080/TCP')
    new = {'metadata': dict(service['metadata']), 'spec': {'ports': [{'port': 80}], 'type': 'NodePort'}}
    strategy = BY_PLURAL['services'].strategy
    strategy.default(new)
    strategy.prepare(new, service)
    assert new['spec']['clusterIP'] == '127.96.0.5'
    assert new['spec']['ports'][0]['nodePort'] == 30080
    new['spec']['clusterIPs'] = ['127.96.0.6']
    assert ('spec.clusterIPs[0]', 'Invalid value: "127.96.0.6": field is immutable') in broken('services', new, service)


def became(service, **spec):
    """The Service after an update that changes only these."""
    new = copy.deepcopy(service)
    new['spec'] |= spec
    BY_PLURAL['services'].strategy.prepare(new, service)
    return new


POLICY = 'externalTrafficPolicy'
BALANCED = {
    'type': 'LoadBalancer', 'externalTrafficPolicy': 'Local', 'clusterIP': '127.96.0.5', 'healthCheckNodePort': 30001,
    'loadBalancerClass': 'a/b', 'ports': [{'port': 80, 'nodePort': 30080}],
}  # fmt: skip


@pytest.mark.parametrize(
    ('spec', 'gone', 'kept'),
    [
        (
            {'type': 'ExternalName', 'externalName': 'a.b'},
            {'clusterIP', 'clusterIPs', 'ipFamilies', 'healthCheckNodePort', POLICY, 'loadBalancerClass'}, set(),
        ),
        ({'type': 'ClusterIP'}, {'healthCheckNodePort', POLICY, 'allocateLoadBalancerNodePorts'}, {'clusterIP'}),
        ({'type': 'ClusterIP', 'externalIPs': ['1.2.3.4']}, {'healthCheckNodePort'}, {POLICY, 'clusterIP'}),
        ({'type': 'NodePort'}, {'healthCheckNodePort', 'loadBalancerClass'}, {POLICY, 'clusterIP'}),
        ({'externalTrafficPolicy': 'Cluster'}, {'healthCheckNodePort'}, {'loadBalancerClass'}),
    ],
)  # fmt: skip
def test_a_service_of_another_type_loses_what_that_has_no_use_for(spec, gone, kept):
    service = made('services', spec=BALANCED)
    new = became(service, **spec)
    assert gone & new['spec'].keys() == set()
    assert kept <= new['spec'].keys()
    assert ('nodePort' in new['spec']['ports'][0]) == (new['spec']['type'] in {'NodePort', 'LoadBalancer'})
    assert broken('services', new, service) == []


def test_what_is_changed_along_with_the_type_is_kept_to_be_refused():
    service = made('services', spec=BALANCED)
    new = became(service, type='ClusterIP', healthCheckNodePort=30002, externalTrafficPolicy='Cluster')
    assert {f for f, _ in broken('services', new, service)} == {
        'spec.healthCheckNodePort',
        'spec.externalTrafficPolicy',
    }
    new = became(service, healthCheckNodePort=30002)
    assert broken('services', new, service) == [
        ('spec.healthCheckNodePort', 'Invalid value: 30002: field is immutable')
    ]


def test_a_node_says_whether_it_takes_pods():
    node = {
        'metadata': {'name': 'n', 'labels': {'node-role.kubernetes.io/worker': ''}},
        'spec': {'unschedulable': True},
        'status': {
            'conditions': [{'type': 'Ready', 'status': 'True'}],
            'addresses': [{'type': 'InternalIP', 'address': '127.0.0.2'}],
        },
    }
    found = cells('nodes', node)
    assert (found['Status'], found['Roles'], found['Internal-IP']) == (
        'Ready,SchedulingDisabled',
        'worker',
        '127.0.0.2',
    )
    assert cells('nodes', {'metadata': {}})['Status'] == 'Unknown'


def test_a_namespace_keeps_its_finalizer_and_names_itself():
    space = made('namespaces')
    assert space['spec'] == {'finalizers': ['kubernetes']}
    assert space['metadata']['labels'] == {'kubernetes.io/metadata.name': 'x'}


def test_names_follow_the_kinds_own_rule():
    role = made('roles')
    role['metadata']['name'] = 'system:x'
    assert broken('roles', role) == []
    service = made('services', spec={'ports': [{'port': 1}]})
    service['metadata']['name'] = '1x'
    assert 'a DNS-1035 label must consist' in broken('services', service)[0][1]


def test_an_event_stays_with_its_object():
    event = made('events', involvedObject={'namespace': 'other', 'kind': 'Pod', 'name': 'p'})
    assert broken('events', event) == [
        ('involvedObject.namespace', 'Invalid value: "other": does not match event.namespace')
    ]
    assert cells('events', event)['Object'] == 'pod/p'


def test_a_role_ref_cannot_change():
    old = made('rolebindings', roleRef={'kind': 'Role', 'name': 'a'}, subjects=[{'kind': 'User', 'name': 'u'}])
    assert broken('rolebindings', old) == []
    new = copy.deepcopy(old)
    new['roleRef']['name'] = 'b'
    assert broken('rolebindings', new, old)[0][1].endswith('cannot change roleRef')


def test_endpoints_show_three_and_count_the_rest():
    obj = made('endpoints', subsets=[{'addresses': [{'ip': f'10.0.0.{i}'} for i in range(5)], 'ports': [{'port': 80}]}])
    assert cells('endpoints', obj)['Endpoints'] == '10.0.0.0:80,10.0.0.1:80,10.0.0.2:80 + 2 more...'


def test_an_autoscaler_without_metrics_watches_the_cpu():
    hpa = made(
        'horizontalpodautoscalers', spec={'maxReplicas': 3, 'scaleTargetRef': {'kind': 'Deployment', 'name': 'web'}}
    )
    found = cells('horizontalpodautoscalers', hpa)
    assert (found['Reference'], found['Targets'], found['MinPods']) == ('Deployment/web', 'cpu: <unknown>/80%', '1')


def test_a_cron_job_names_a_time_zone_that_exists():
    def zoned(zone):
        job = {'template': {'spec': {**TEMPLATE['spec'], 'restartPolicy': 'Never'}}}
        return made('cronjobs', spec={'schedule': '* * * * *', 'timeZone': zone, 'jobTemplate': {'spec': job}})

    assert broken('cronjobs', zoned('Europe/Berlin')) == []
    unknown = zoned('Mars/Base')
    assert broken('cronjobs', unknown) == [
        ('spec.timeZone', 'Invalid value: "Mars/Base": unknown time zone Mars/Base'),
    ]  # fmt: skip
    assert broken('cronjobs', unknown, unknown) == [], 'one that was taken once stays'
    assert 'explicit time zone' in broken('cronjobs', zoned('local'))[0][1]
    assert 'non-empty' in broken('cronjobs', zoned(''))[0][1]
