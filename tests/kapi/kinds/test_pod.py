"""Pods: the STATUS word, defaults, quality of service, what is refused, what may change."""

import copy
from datetime import UTC, datetime

import pytest

from kapi.kinds.core.pod import KIND, pod_warnings
from kapi.kinds.core.pod_defaults import pull_policy
from kapi.kinds.core.pod_qos import qos_class
from kapi.kinds.core.pod_rules import pod_spec, pod_update

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
        (
            {'containers': [{'name': n, 'image': 'x', 'ports': [{'containerPort': 80, 'hostPort': 81}]} for n in 'ab']},
            ('spec.containers[1].ports[0].hostPort', 'Duplicate value: "TCP//81"'),
        ),
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


def sized(cpu='100m', memory='64Mi', name='c', **more):
    """A container with requests, twice as high limits, and what else is given."""
    limits = {'cpu': '1', 'memory': '128Mi', **more.pop('limits', {})}
    return {
        'name': name, 'image': 'i',
        'resources': {'requests': {'cpu': cpu, 'memory': memory}, 'limits': limits}, **more,
    }  # fmt: skip


RESTARTS = {'resizePolicy': [{'resourceName': 'memory', 'restartPolicy': 'RestartContainer'}]}
PLAIN = 'spec.containers[0].resources'
TO_COMPUTE = ('spec', 'Forbidden: only cpu and memory resources are mutable')


@pytest.mark.parametrize(
    ('change', 'found'),
    [
        (pod(sized('200m', '96Mi')), set()),
        (pod(sized(limits={'memory': '256Mi'})), set()),
        (
            pod(sized(limits={'memory': '96Mi'})),
            {(f'{PLAIN}.limits[memory]',
              'Forbidden: memory limits cannot be decreased unless resizePolicy is RestartContainer')},
        ),
        (
            pod(sized('1', '128Mi')),
            {('spec', 'Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing')},
        ),
        (
            pod({**sized(), 'resources': {'requests': {'cpu': '1', 'memory': '1Mi'}, 'limits': {'cpu': '1'}}}),
            {(f'{PLAIN}.limits', 'Forbidden: resource limits cannot be removed')},
        ),
        (
            pod(sized('2')),
            {(f'{PLAIN}.requests', 'Invalid value: "2": must be less than or equal to cpu limit of 1')},
        ),
        (pod(sized(limits={'ephemeral-storage': '1Gi'})), {TO_COMPUTE}),
        (pod(sized(**RESTARTS)), {TO_COMPUTE}),
        (
            pod(sized(name='other')),
            {('spec.containers[0].name', 'Forbidden: containers may not be renamed or reordered on resize')},
        ),
        (
            pod(sized(), sized(name='d')),
            {('spec.containers', 'Forbidden: containers may not be added or removed on resize')},
        ),
    ],
)  # fmt: skip
def test_a_resize_changes_cpu_and_memory_within_the_class_of_service(change, found):
    old = pod(sized())
    assert {(i.field, i.message) for i in STRATEGY.validate_part('resize', change, old)} == found


def test_a_resize_cannot_take_a_request_away():
    old, new = (
        pod({**sized(), 'resources': {'requests': wants}}) for wants in ({'cpu': '1', 'memory': '1Mi'}, {'cpu': '1'})
    )
    [refusal] = STRATEGY.validate_part('resize', new, old)
    assert (refusal.field, refusal.message) == (f'{PLAIN}.requests', 'Forbidden: resource requests cannot be removed')


def test_memory_can_be_taken_from_a_container_that_is_restarted_for_it():
    old, new = pod(sized(**RESTARTS)), pod(sized(limits={'memory': '96Mi'}, **RESTARTS))
    assert not list(STRATEGY.validate_part('resize', new, old))


def test_sidecars_are_resized_and_other_init_containers_are_not():
    def with_init(cpu, **more):
        return pod(sized(), initContainers=[sized(cpu, name='i', **more)])

    sidecar = {'restartPolicy': 'Always'}
    assert not list(STRATEGY.validate_part('resize', with_init('200m', **sidecar), with_init('100m', **sidecar)))
    [refusal] = STRATEGY.validate_part('resize', with_init('200m'), with_init('100m'))
    assert refusal.message == 'Forbidden: resources for non-sidecar init containers are immutable'


def test_static_pods_are_neither_resized_nor_debugged():
    mirror = pod(sized())
    mirror['metadata']['annotations'] = {'kubernetes.io/config.mirror': 'x'}
    for part, message in (
        ('resize', 'Forbidden: static pods cannot be resized'),
        ('ephemeralcontainers', 'Forbidden: static pods do not support ephemeral containers'),
    ):
        [refusal] = STRATEGY.validate_part(part, mirror, mirror)
        assert refusal.message == message


def test_ephemeral_containers_are_added_and_stay_as_they_are():
    def debugged(*names, image='i'):
        return pod(ephemeralContainers=[{'name': n, 'image': image} for n in names])

    def refused(new, old):
        return {i.message for i in STRATEGY.validate_part('ephemeralcontainers', new, old)}

    assert not refused(debugged('d', 'e'), debugged('d'))
    assert refused(debugged('e'), debugged('d')) == {'Forbidden: existing ephemeral containers "d" may not be removed'}
    changed = refused(debugged('d', image='other'), debugged('d'))
    assert changed == {'Forbidden: existing ephemeral containers "d" may not be changed'}
    assert refused(debugged('c'), pod()) == {'Duplicate value: "c"'}
    assert refused(debugged('d', image=''), pod()) == {'Required value'}


class Items(list):
    """Counts how many items were looked at, in loops and in searches."""

    looks = 0

    def __iter__(self):
        for item in super().__iter__():
            Items.looks += 1
            yield item

    def __contains__(self, what: object) -> bool:
        Items.looks += len(self)
        return super().__contains__(what)


def looks_of(count: int) -> int:
    """How many items are looked at to judge a pod with `count` items in each list, and a change of it."""
    Items.looks = 0
    volumes = Items({'name': f'v{i}', 'emptyDir': {}} for i in range(count))
    main = Items({'name': f'c{i}', 'image': 'x', 'env': Items([{'name': 'A'}]), 'ports': Items()} for i in range(count))
    more = Items({'name': f'e{i}', 'image': 'x', 'targetContainerName': 'c0'} for i in range(count))
    tolerations = Items({'key': f'k{i}', 'operator': 'Exists'} for i in range(count))
    spec = {'containers': main, 'ephemeralContainers': more, 'volumes': volumes, 'tolerations': tolerations}
    pod = {'metadata': {'name': 'p'}, 'spec': spec}
    list(pod_warnings('spec', spec))
    list(pod_spec('spec', spec))
    list(pod_update({**pod, 'spec': {**spec, 'tolerations': Items(reversed(tolerations))}}, pod))
    return Items.looks


def test_a_pod_with_twice_as_many_containers_takes_no_more_than_twice_the_looks():
    assert looks_of(200) <= 2 * looks_of(100) + 10


def test_a_variable_that_hides_another_is_warned_of_where_it_is():
    twice = [{'name': 'A'}, {'name': 'B'}, {'name': 'A'}]
    spec = {'initContainers': [{'env': twice}], 'containers': [{}, {'env': twice}]}
    hides = 'hides previous definition of "A", which may be dropped when using apply'
    assert list(pod_warnings('spec', spec)) == [
        f'spec.initContainers[0].env[2]: {hides}', f'spec.containers[1].env[2]: {hides}',
    ]  # fmt: skip
