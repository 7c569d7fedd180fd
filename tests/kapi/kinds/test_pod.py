"""Pods: the STATUS word, defaults, quality of service, what is refused, what may change."""

import copy
from datetime import UTC, datetime

import pytest

from kapi.kinds.core.pod import KIND, qos_class
from kapi.kinds.core.pod_defaults import pull_policy

NOW = datetime(2026, 1, 1, 0, 10, tzinfo=UTC)
STRATEGY = KIND.strategy


def pod(*containers, **spec):
    obj = {
        'metadata': {'name': 'p', 'namespace': 'd'},
        'spec': {'containers': list(containers) or [{'name': 'c', 'image': 'i'}], **spec},
    }
    STRATEGY.default(obj)
    return obj


def row(obj, *names):
    cells = {c.name: c.value(obj, NOW) for c in KIND.columns}
    return tuple(cells[n] for n in names or ('Ready', 'Status', 'Restarts'))


def broken(obj, old=None):
    return {(i.field, i.message) for i in STRATEGY.validate(obj, old)}


def state(name='c', ready=False, restarts=0, last=None, **now):
    found = {'name': name, 'ready': ready, 'restartCount': restarts, 'state': now}
    if last:
        found['lastState'] = {'terminated': {'finishedAt': last}}
    return found


RUNNING = {'running': {'startedAt': '2026-01-01T00:00:00Z'}}


@pytest.mark.parametrize(
    ('status', 'cells'),
    [
        ({'phase': 'Pending'}, ('0/1', 'Pending', '0')),
        (
            {'phase': 'Pending', 'containerStatuses': [state(waiting={'reason': 'ContainerCreating'})]},
            ('0/1', 'ContainerCreating', '0'),
        ),
        ({'phase': 'Running', 'containerStatuses': [state(ready=True, **RUNNING)]}, ('1/1', 'Running', '0')),
        (
            {
                'phase': 'Running',
                'containerStatuses': [
                    state(restarts=3, last='2026-01-01T00:05:00Z', waiting={'reason': 'CrashLoopBackOff'})
                ],
            },
            ('0/1', 'CrashLoopBackOff', '3 (5m ago)'),
        ),
        (
            {'phase': 'Succeeded', 'containerStatuses': [state(terminated={'exitCode': 0, 'reason': 'Completed'})]},
            ('0/1', 'Completed', '0'),
        ),
        (
            {'phase': 'Failed', 'containerStatuses': [state(terminated={'exitCode': 1, 'reason': 'Error'})]},
            ('0/1', 'Error', '0'),
        ),
        ({'phase': 'Failed', 'containerStatuses': [state(terminated={'exitCode': 3})]}, ('0/1', 'ExitCode:3', '0')),
        (
            {'phase': 'Failed', 'containerStatuses': [state(terminated={'exitCode': 137, 'signal': 9})]},
            ('0/1', 'Signal:9', '0'),
        ),
        ({'phase': 'Failed', 'reason': 'Evicted'}, ('0/1', 'Evicted', '0')),
        (
            {
                'phase': 'Pending',
                'conditions': [{'type': 'PodScheduled', 'status': 'False', 'reason': 'SchedulingGated'}],
            },
            ('0/1', 'SchedulingGated', '0'),
        ),
    ],
)
def test_the_row_of_a_pod_tells_the_state_of_its_containers(status, cells):
    assert row({**pod(), 'status': status}) == cells


@pytest.mark.parametrize(
    ('init', 'word'),
    [
        ([state('i', **RUNNING)], 'Init:0/2'),
        ([state('i', terminated={'exitCode': 0}), state('j', waiting={'reason': 'PodInitializing'})], 'Init:1/2'),
        ([state('i', terminated={'exitCode': 1, 'reason': 'Error'})], 'Init:Error'),
        ([state('i', terminated={'exitCode': 2})], 'Init:ExitCode:2'),
        ([state('i', waiting={'reason': 'CrashLoopBackOff'})], 'Init:CrashLoopBackOff'),
    ],
)
def test_an_init_container_that_is_not_done_is_what_the_row_shows(init, word):
    obj = pod(initContainers=[{'name': 'i', 'image': 'x'}, {'name': 'j', 'image': 'x'}])
    obj['status'] = {
        'phase': 'Pending',
        'initContainerStatuses': init,
        'containerStatuses': [state(waiting={'reason': 'PodInitializing'})],
    }
    assert row(obj, 'Status') == (word,)


def test_a_sidecar_counts_among_the_containers():
    obj = pod(initContainers=[{'name': 's', 'image': 'x', 'restartPolicy': 'Always'}])
    obj['status'] = {
        'phase': 'Running',
        'initContainerStatuses': [{**state('s', ready=True, restarts=2, **RUNNING), 'started': True}],
        'containerStatuses': [state(ready=True, **RUNNING)],
    }
    assert row(obj) == ('2/2', 'Running', '2')


def test_a_deleted_pod_is_terminating_until_it_is_done():
    obj = pod()
    obj['metadata']['deletionTimestamp'] = '2026-01-01T00:00:00Z'
    obj['status'] = {'phase': 'Running', 'containerStatuses': [state(ready=True, **RUNNING)]}
    assert row(obj, 'Status') == ('Terminating',)
    obj['status'] = {'phase': 'Running', 'reason': 'NodeLost'}
    assert row(obj, 'Status') == ('Unknown',)


def test_defaults_are_upstreams():
    obj = pod(
        {'name': 'c', 'image': 'nginx', 'ports': [{'containerPort': 80}], 'livenessProbe': {'httpGet': {'port': 80}}},
        volumes=[{'name': 'v'}, {'name': 's', 'secret': {'secretName': 'x'}}],
    )
    assert obj['spec'] == {
        'containers': [
            {
                'name': 'c',
                'image': 'nginx',
                'ports': [{'containerPort': 80, 'protocol': 'TCP'}],
                'livenessProbe': {
                    'httpGet': {'port': 80, 'path': '/', 'scheme': 'HTTP'},
                    'timeoutSeconds': 1,
                    'periodSeconds': 10,
                    'successThreshold': 1,
                    'failureThreshold': 3,
                },
                'terminationMessagePath': '/dev/termination-log',
                'terminationMessagePolicy': 'File',
                'imagePullPolicy': 'Always',
                'resources': {},
            }
        ],
        'volumes': [{'name': 'v', 'emptyDir': {}}, {'name': 's', 'secret': {'secretName': 'x', 'defaultMode': 420}}],
        'dnsPolicy': 'ClusterFirst',
        'restartPolicy': 'Always',
        'terminationGracePeriodSeconds': 30,
        'schedulerName': 'default-scheduler',
        'securityContext': {},
        'enableServiceLinks': True,
    }


@pytest.mark.parametrize(
    ('image', 'policy'),
    [
        ('a', 'Always'),
        ('a:latest', 'Always'),
        ('a:1', 'IfNotPresent'),
        ('h:5000/a', 'Always'),
        ('h:5000/a:1', 'IfNotPresent'),
        ('a@sha256:0', 'IfNotPresent'),
    ],
)
def test_the_tag_decides_when_an_image_is_pulled(image, policy):
    assert pull_policy(image) == policy


def test_quality_of_service_follows_requests_and_limits():
    def with_resources(**resources):
        return pod({'name': 'c', 'image': 'i', 'resources': resources})

    assert qos_class(pod()) == 'BestEffort'
    assert qos_class(with_resources(requests={'cpu': '1'})) == 'Burstable'
    assert qos_class(with_resources(limits={'cpu': '1', 'memory': '1Gi'})) == 'Guaranteed'
    assert qos_class(with_resources(limits={'cpu': '1', 'memory': '1Gi'}, requests={'cpu': '500m'})) == 'Burstable'


def test_what_asks_for_devices_is_dropped_as_upstream_does_while_its_gate_is_off():
    asks = {'name': 'c', 'image': 'i', 'resources': {'claims': [{'name': 'gpu'}], 'limits': {'cpu': '1'}}}
    made = pod(asks, resourceClaims=[{'name': 'gpu', 'resourceClaimTemplateName': 't'}])
    assert 'resourceClaims' not in made['spec']
    assert made['spec']['containers'][0]['resources'] == {'limits': {'cpu': '1'}, 'requests': {'cpu': '1'}}


def test_a_new_pod_is_pending():
    obj = pod()
    STRATEGY.prepare(obj, None)
    assert obj['status'] == {'phase': 'Pending', 'qosClass': 'BestEffort'}


@pytest.mark.parametrize(
    ('spec', 'error'),
    [
        ({'containers': []}, ('spec.containers', 'Required value')),
        ({'containers': [{'name': '', 'image': 'x'}]}, ('spec.containers[0].name', 'Required value')),
        ({'containers': [{'name': 'a', 'image': ''}]}, ('spec.containers[0].image', 'Required value')),
        ({'containers': [{'name': 'a', 'image': 'x'}] * 2}, ('spec.containers[1].name', 'Duplicate value: "a"')),
        (
            {'restartPolicy': 'Foo'},
            ('spec.restartPolicy', 'Unsupported value: "Foo": supported values: "Always", "Never", "OnFailure"'),
        ),
        (
            {'containers': [{'name': 'a', 'image': 'x', 'ports': [{'containerPort': 70000}]}]},
            (
                'spec.containers[0].ports[0].containerPort',
                'Invalid value: 70000: must be between 1 and 65535, inclusive',
            ),
        ),
        (
            {'containers': [{'name': 'a', 'image': 'x', 'volumeMounts': [{'name': 'v', 'mountPath': '/x'}]}]},
            ('spec.containers[0].volumeMounts[0].name', 'Not found: "v"'),
        ),
        (
            {
                'volumes': [{'name': 'v', 'emptyDir': {}}],
                'containers': [
                    {
                        'name': 'a',
                        'image': 'x',
                        'volumeMounts': [{'name': 'v', 'mountPath': '/x', 'recursiveReadOnly': 'Enabled'}],
                    }
                ],
            },
            (
                'spec.containers[0].volumeMounts[0].recursiveReadOnly',
                'Forbidden: may only be specified when readOnly is true',
            ),
        ),
        (
            {
                'containers': [
                    {'name': 'a', 'image': 'x', 'resources': {'requests': {'cpu': '2'}, 'limits': {'cpu': '1'}}}
                ]
            },
            (
                'spec.containers[0].resources.requests',
                'Invalid value: "2": must be less than or equal to cpu limit of 1',
            ),
        ),
        (
            {'volumes': [{'name': 'v', 'emptyDir': {}, 'hostPath': {'path': '/'}}]},
            ('spec.volumes[0].hostPath', 'Forbidden: may not specify more than 1 volume type'),
        ),
        (
            {'terminationGracePeriodSeconds': -1},
            ('spec.terminationGracePeriodSeconds', 'Invalid value: -1: must be greater than or equal to 0'),
        ),
    ],
)
def test_a_broken_spec_is_refused_in_upstreams_words(spec, error):
    assert error in broken(pod(**spec))


def test_a_good_pod_breaks_no_rule():
    assert broken(pod(tolerations=[{'operator': 'Exists'}], nodeSelector={'a': 'b'})) == set()


def test_only_images_tolerations_and_the_deadline_may_change():
    old = pod({'name': 'c', 'image': 'a'}, nodeName='n')
    new = copy.deepcopy(old)
    new['spec']['containers'][0]['image'] = 'b'
    new['spec']['activeDeadlineSeconds'] = 5
    new['spec']['tolerations'] = [{'key': 'k', 'operator': 'Exists'}]
    assert broken(new, old) == set()
    new['spec']['nodeName'] = 'other'
    (found,) = broken(new, old)
    assert found[0] == 'spec'
    assert found[1].startswith('Forbidden: pod updates may not change fields other than `spec.containers[*].image`,')
    assert found[1].endswith('changed: spec.nodeName')


def test_a_toleration_cannot_be_taken_away():
    old = pod(tolerations=[{'key': 'k', 'operator': 'Exists'}])
    new = pod()
    assert (
        'spec.tolerations',
        'Forbidden: existing toleration can not be modified except its tolerationSeconds',
    ) in broken(new, old)


@pytest.mark.parametrize(
    ('node', 'phase', 'requested', 'grace'),
    [
        ('n', 'Running', None, 30),
        ('n', 'Running', 5, 5),
        ('n', 'Running', -1, 1),
        ('', 'Pending', None, 0),
        ('n', 'Failed', 10, 0),
    ],
)
def test_grace_is_for_pods_that_run_somewhere(node, phase, requested, grace):
    obj = pod(**({'nodeName': node} if node else {}))
    obj['status'] = {'phase': phase}
    assert STRATEGY.grace_period_s(obj, requested) == grace
