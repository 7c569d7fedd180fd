"""The node's pods in virtual time: room for critical pods, the order of a shutdown, times of restarts and ends."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from kcore.meta.times import format_time
from kcore.metrics import render
from knode.pods.model import Verdict
from knode.pods.pulls import duration
from tests.knode.virtual_node import VirtualNode

CRITICAL = {'priority': 2_000_000_000, 'priorityClassName': 'system-cluster-critical'}


@pytest.fixture
def node(tmp_path):
    return VirtualNode(tmp_path)


OVER = Verdict('Terminated', 'over', None, 'TerminationByKubelet')


def asks(cpu):
    return [{'name': 'c', 'image': 'busybox', 'resources': {'requests': {'cpu': cpu}}}]


def figures(node):
    lines = (line.rsplit(' ', 1) for line in render(node.host.metrics.registry).decode().splitlines())
    return {name: float(value) for name, value in lines if not name.startswith('#')}


def test_a_critical_pod_waits_until_others_have_made_room(node):
    async def script():
        node.create('small', {'stop-for': '4'}, containers=asks('1'))
        node.create('large', {'stop-for': '4'}, containers=asks('3'))
        await asyncio.sleep(10)
        node.create('critical', containers=asks('1'), **CRITICAL)
        await asyncio.sleep(1)
        assert [n for _, n, _ in node.told if n == 'critical'] == []
        await asyncio.sleep(10)

    node.run(script)
    gone = node.status('small')
    assert (gone['phase'], gone['reason'], gone['message']) == (
        'Failed', 'Preempting', 'Preempted in order to admit critical pod',
    )  # fmt: skip
    assert figures(node)['kubelet_preemptions{preemption_signal="cpu"}'] == 1
    told = next(c for c in gone['conditions'] if c['type'] == 'DisruptionTarget')
    assert (told['reason'], told['message']) == (
        'TerminationByKubelet', 'Pod was preempted by Kubelet to accommodate a critical pod.',
    )  # fmt: skip
    assert node.status('large')['phase'] == node.status('critical')['phase'] == 'Running'
    assert next(at for at, n, s in node.told if n == 'critical' and s['phase'] == 'Running') == pytest.approx(14, abs=1)


def test_a_critical_pod_that_is_deleted_while_it_waits_is_not_started(node):
    async def script():
        node.create('small', {'stop-for': '4'}, containers=asks('4'))
        await asyncio.sleep(10)
        node.create('critical', containers=asks('1'), **CRITICAL)
        await asyncio.sleep(1)
        node.delete('critical')
        await asyncio.sleep(10)

    node.run(script)
    assert 'default/critical' not in node.pods
    assert not node.heard('critical', 'Started')


def test_a_critical_pod_that_no_room_can_be_made_for_is_refused(node):
    async def script():
        node.create('small', containers=asks('1'))
        node.create('critical', containers=asks('5'), **CRITICAL)
        await asyncio.sleep(10)

    node.run(script)
    refused = node.status('critical')
    assert (refused['phase'], refused['reason']) == ('Failed', 'UnexpectedAdmissionError')
    assert figures(node)['kubelet_admission_rejections_total{reason="UnexpectedAdmissionError"}'] == 1
    assert 'no set of running pods found to reclaim resources: [(res: cpu, q: 2000), ]' in refused['message']
    assert node.status('small')['phase'] == 'Running'


def test_a_shutdown_ends_critical_pods_after_the_others(node):
    async def script():
        node.create('critical', {'stop-for': '3'}, **CRITICAL)
        node.create('deaf', {'stop-for': '1000'})
        node.create('quick', {'stop-for': '1'})
        await asyncio.sleep(10)
        await node.manager.terminate(OVER, {0: 20.0, 2_000_000_000: 10.0})
        assert node.now == pytest.approx(33, abs=0.5)
        node.create('late')
        await asyncio.sleep(1)

    node.run(script)
    ended = {n: at for at, n, s in reversed(node.told) if s['phase'] == 'Failed'}
    assert {n: round(at) for n, at in ended.items()} == {'quick': 11, 'deaf': 30, 'critical': 33, 'late': 33}
    assert node.status('late')['reason'] == 'NodeShutdown'


def test_pauses_between_restarts_double_to_five_minutes(node):
    async def script():
        node.create('p', {'run-for': '5', 'exit-code': '3'})
        await asyncio.sleep(1500)

    node.run(script)
    starts = [at for at, _, _ in node.heard('p', 'Started')]
    pauses = [round(b - a - 5) for a, b in itertools.pairwise(starts)]
    assert pauses == [0, 10, 20, 40, 80, 160, 300, 300, 300]
    assert node.heard('p', 'BackOff')[0][2] == 'Back-off restarting failed container c in pod p_default(u1)'


def test_a_pod_past_its_deadline_fails_and_its_containers_get_their_grace(node):
    async def script():
        node.create('p', {'stop-for': '1000'}, activeDeadlineSeconds=20)
        await asyncio.sleep(100)

    node.run(script)
    gone = node.status('p')
    assert (gone['phase'], gone['reason']) == ('Failed', 'DeadlineExceeded')
    assert next(at for at, _, s in node.told if s['phase'] == 'Failed') == pytest.approx(50, abs=0.5)
    assert gone['containerStatuses'][0]['state']['terminated']['exitCode'] == 137


def test_a_runtime_class_names_the_driver_by_its_handler(node):
    node.objects = {f'runtimeclasses//{n}': {'handler': h} for n, h in (('fast', 'other'), ('strange', 'gvisor'))}

    async def script():
        for name in ('fast', 'strange', 'absent'):
            node.create(name, runtimeClassName=name)
        node.create('private', hostUsers=False)
        node.create('plain')
        await asyncio.sleep(5)
        assert {w.key: w.driver.name for w in node.manager.workers.values() if w.sandbox()} == {
            'default/fast': 'other', 'default/plain': 'simulated',
        }  # fmt: skip
        node.objects['runtimeclasses//absent'] = {'handler': 'process'}
        await asyncio.sleep(20)

    node.run(script)
    phases = {n: node.status(n)['phase'] for n in ('fast', 'strange', 'absent', 'plain')}
    assert phases == {'fast': 'Running', 'strange': 'Pending', 'absent': 'Running', 'plain': 'Running'}
    said = {n: node.heard(n, 'FailedCreatePodSandBox')[0][2] for n in ('strange', 'absent', 'private')}
    assert said == {
        'strange': 'Failed to create pod sandbox: failed to get sandbox runtime: no runtime for "gvisor" is configured',
        'absent': 'Failed to create pod sandbox: runtimeclass.node.k8s.io "absent" not found',
        'private': 'Failed to create pod sandbox: user namespaces are not supported by this node: '
        'hostUsers must not be false',
    }


def claim(name, volume='pv', phase='Bound', uid='c1', **meta):
    return {'metadata': {'name': name, 'uid': uid, **meta}, 'spec': {'volumeName': volume}, 'status': {'phase': phase}}


def pv(uid='c1', **source):
    return {'metadata': {'name': 'pv'}, 'spec': {'claimRef': {'uid': uid}, **source}}


def test_a_claim_is_the_directory_behind_its_volume(node, tmp_path):
    place = tmp_path / 'data'
    place.mkdir()
    owner = {'kind': 'Pod', 'uid': 'u2', 'controller': True}
    claims, volumes = 'persistentvolumeclaims/default/', 'persistentvolumes//'
    node.objects = {
        claims + 'mine': claim('mine'), volumes + 'pv': pv(local={'path': str(place)}),
        claims + 'own-scratch': claim('own-scratch', 'made', uid='c2', ownerReferences=[owner]),
        volumes + 'made': pv('c2', hostPath={'path': str(tmp_path / 'made'), 'type': 'DirectoryOrCreate'}),
    }  # fmt: skip

    async def script():
        node.create('p', volumes=[{'name': 'v', 'persistentVolumeClaim': {'claimName': 'mine'}}])
        node.create('own', volumes=[{'name': 'scratch', 'ephemeral': {'volumeClaimTemplate': {}}}])
        await asyncio.sleep(5)
        roots = {w.key: w.volumes for w in node.manager.workers.values()}
        assert roots['default/p'].path('v').resolve() == place
        assert roots['default/own'].path('scratch').resolve() == tmp_path / 'made'
        for name in ('p', 'own'):
            node.delete(name, 0)
        await asyncio.sleep(5)

    node.run(script)
    assert not node.pods
    assert place.is_dir(), 'the data stay'


@pytest.mark.parametrize(
    ('objects', 'words'),
    [
        ({}, 'failed to fetch PVC from API server: persistentvolumeclaims "mine" not found'),
        ({'c': claim('mine', phase='Pending')}, 'PVC is not bound'),
        ({'c': claim('mine', deletionTimestamp='2026-01-01T00:00:00Z')}, 'PVC is being deleted'),
        ({'c': claim('mine')}, 'failed to fetch PV pv from API server'),
        ({'c': claim('mine'), 'v': pv('other', hostPath={'path': '/tmp'})}, 'PV pv is bound to another claim'),
        ({'c': claim('mine'), 'v': pv(nfs={})}, 'only hostPath and local are supported by this node'),
        ({'c': claim('mine'), 'v': pv(local={'path': '/no/such'})}, '/no/such is not a directory'),
    ],
)
def test_a_claim_that_cannot_be_used_says_why(node, *, objects, words):
    keys = {'c': 'persistentvolumeclaims/default/mine', 'v': 'persistentvolumes//pv'}
    node.objects = {keys[k]: o for k, o in objects.items()}

    async def script():
        node.create('p', volumes=[{'name': 'v', 'persistentVolumeClaim': {'claimName': 'mine'}}])
        await asyncio.sleep(1)

    node.run(script)
    text = node.heard('p', 'FailedMount')[0][2]
    unready = 'unmounted volumes=[v], unattached volumes=[], failed to process volumes=[v]'
    starts = f'Unable to attach or mount volumes: {unready}: error processing PVC default/mine: '
    found = words.startswith(('only', '/'))  # what is claimed is there, and cannot be mounted
    assert text.startswith('MountVolume.SetUp failed for volume "v" : ' if found else starts)
    assert words in text
    assert node.status('p')['phase'] == 'Pending'


def test_a_running_container_has_its_new_resources_without_a_restart(node):
    async def script():
        node.create('p', containers=asks('1'))
        await asyncio.sleep(5)
        node.resize('p', requests={'cpu': '2'})
        await asyncio.sleep(5)

    node.run(script)
    got = node.status('p')['containerStatuses'][0]
    assert (got['resources'], got['allocatedResources']) == ({'requests': {'cpu': '2'}}, {'cpu': '2'})
    assert got['restartCount'] == 0
    told = [s['containerStatuses'][0].get('resources') for _, _, s in node.told]
    assert {'requests': {'cpu': '1'}} in told


def test_hooks_of_sidecars_run_at_once_and_their_signals_wait_for_their_turn(node):
    def lasting(name, seconds, hook_s, **more):
        hook = {'preStop': {'sleep': {'seconds': hook_s}}} if hook_s else {}
        return {'name': name, 'image': 'busybox', 'lifecycle': hook, **more}, {f'stop-for.{name}': str(seconds)}

    main, one = lasting('main', 4, 3)
    first, two = lasting('first', 1, 9, restartPolicy='Always')
    second, three = lasting('second', 1, 5, restartPolicy='Always')

    async def script():
        node.create('p', one | two | three, containers=[main], initContainers=[first, second])
        await asyncio.sleep(10)
        node.delete('p')
        await asyncio.sleep(30)

    node.run(script)
    assert 'default/p' not in node.pods
    assert sorted((round(at), text) for at, _, text in node.heard('p', 'Killing')) == [
        (10, f'Stopping container {name}') for name in ('first', 'main', 'second')
    ]
    ended = {}
    for at, _, s in node.told:
        for c in (*s['containerStatuses'], *s.get('initContainerStatuses', ())):
            if 'terminated' in c['state']:
                ended.setdefault(c['name'], round(at))
    assert ended == {'main': 17, 'second': 18, 'first': 20}, 'hooks end at 13, 15 and 19'


def test_a_shortened_grace_reaches_a_sidecar_whose_hook_hangs(node):
    hook = {'preStop': {'sleep': {'seconds': 1000}}}
    side = {'name': 'side', 'image': 'busybox', 'lifecycle': hook, 'restartPolicy': 'Always'}

    async def script():
        node.create('p', {'stop-for': '1'}, initContainers=[side])
        await asyncio.sleep(10)
        node.delete('p', 100)
        await asyncio.sleep(10)
        node.delete('p', 1)
        await asyncio.sleep(5)

    node.run(script)
    assert 'default/p' not in node.pods


@pytest.mark.parametrize('policy', ['Always', 'OnFailure', 'Never'])
def test_a_changed_image_restarts_a_container_whatever_its_policy(node, policy):
    async def script():
        pod = node.create('p', restartPolicy=policy)
        await asyncio.sleep(5)
        containers = [{**pod['spec']['containers'][0], 'image': 'alpine'}]
        node.write({**pod, 'spec': {**pod['spec'], 'containers': containers}})
        await asyncio.sleep(20)

    node.run(script)
    got = node.status('p')
    assert (got['phase'], got['containerStatuses'][0]['restartCount']) == ('Running', 1)
    assert [text for _, _, text in node.heard('p', 'Killing')] == ['Container c definition changed, will be restarted']


def test_a_container_counts_as_running_when_its_post_start_hook_is_done_and_the_next_one_starts_then(node):
    hook = {'postStart': {'sleep': {'seconds': 7}}}
    containers = [{'name': 'a', 'image': 'busybox', 'lifecycle': hook}, {'name': 'b', 'image': 'busybox'}]

    async def script():
        node.create('p', containers=containers)
        await asyncio.sleep(6)
        told = node.status('p')
        assert told['phase'] == 'Pending'
        assert [c['state'] for c in told['containerStatuses']] == [{'waiting': {'reason': 'ContainerCreating'}}] * 2
        await asyncio.sleep(4)

    node.run(script)
    assert [(round(at), text) for at, _, text in node.heard('p', 'Started')] == [
        (0, 'Started container a'), (7, 'Started container b'),
    ]  # fmt: skip
    told = node.status('p')
    assert (told['phase'], [c['ready'] for c in told['containerStatuses']]) == ('Running', [True, True])


def test_a_shutdown_ends_pods_by_their_priority_each_with_the_seconds_of_its_own(node):
    async def script():
        for name, priority in (('least', -5), ('none', 0), ('some', 999), ('more', 1000), ('most', 2_000_000_000)):
            node.create(name, {'stop-for': '1000'}, priority=priority)
        node.create('brief', {'stop-for': '1000'}, priority=1000, terminationGracePeriodSeconds=3)
        await asyncio.sleep(10)
        await node.manager.terminate(OVER, {0: 5.0, 1000: 8.0})

    node.run(script)
    ended = {n: round(at) for at, n, s in reversed(node.told) if s['phase'] == 'Failed'}
    assert ended == {'least': 15, 'none': 15, 'some': 15, 'brief': 18, 'more': 23, 'most': 23}


def test_a_pod_whose_sandbox_was_lost_gets_another_and_says_so(node):
    async def script():
        node.create('p')
        await asyncio.sleep(5)
        [pod] = node.drivers['process']._pods.values()
        for record in pod.records.values():
            node.drivers['process']._finish(pod, record.id, 137, 9)
        pod.alive = False
        pod.changed()
        await asyncio.sleep(5)

    node.run(script)
    text = 'Pod sandbox changed, it will be killed and re-created.'
    assert [(reason, said) for _, reason, said in node.heard('p', 'SandboxChanged')] == [('SandboxChanged', text)]
    assert node.status('p')['containerStatuses'][0]['restartCount'] == 1


def test_a_pod_that_somebody_else_has_declared_failed_ends(node):
    async def script():
        pod = node.create('p', {'stop-for': '3'})
        await asyncio.sleep(5)
        node.write({**pod, 'status': {'phase': 'Failed', 'reason': 'Lost', 'message': 'nobody knows it'}})
        await asyncio.sleep(10)

    node.run(script)
    status = node.status('p')
    assert (status['phase'], status['reason'], status['message']) == ('Failed', 'Lost', 'nobody knows it')
    assert 'terminated' in status['containerStatuses'][0]['state']


def test_what_the_pods_of_a_node_went_through_is_counted_under_the_names_of_the_kubelet(node):
    async def script():
        p = node.create('p', {'start-delay': '3'})
        born = {**p['metadata'], 'creationTimestamp': format_time(node.env.clock.wall())}
        node.create('q', {'start-error': 'no such program'}, restartPolicy='Never')
        node.create('r', containers=[{'name': 'c', 'image': 'busybox', 'env': [unknown]}])
        await asyncio.sleep(5)
        for _ in range(2):
            node.write({**p, 'metadata': born, 'status': node.status('p')})
        await asyncio.sleep(5)
        node.delete('p')
        await asyncio.sleep(60)

    unknown = {'name': 'X', 'valueFrom': {'configMapKeyRef': {'name': 'none', 'key': 'k'}}}
    node.run(script)
    found = figures(node)
    assert {
        name: found[name]
        for name in (
            'kubelet_started_pods_total', 'kubelet_started_pods_errors_total',
            'kubelet_started_containers_errors_total{code="RunContainerError",container_type="container"}',
            'kubelet_pod_start_duration_seconds_count', 'kubelet_pod_start_duration_seconds_bucket{le="2.0"}',
            'kubelet_runtime_operations_total{operation_type="run_podsandbox"}',
            'kubelet_runtime_operations_total{operation_type="stop_container"}',
            'kubelet_run_podsandbox_duration_seconds_count{runtime_handler=""}',
            'kubelet_pod_start_total_duration_seconds_count',
            'kubelet_pod_start_sli_duration_seconds_bucket{le="4.0"}',
            'kubelet_pod_start_sli_duration_seconds_bucket{le="6.0"}',
            'kubelet_pod_worker_start_duration_seconds_count', 'kubelet_containers_per_pod_count_sum',
        )
    } == {
        'kubelet_started_pods_total': 3, 'kubelet_started_pods_errors_total': 0,
        'kubelet_started_containers_errors_total{code="RunContainerError",container_type="container"}': 1,
        'kubelet_pod_start_duration_seconds_count': 2, 'kubelet_pod_start_duration_seconds_bucket{le="2.0"}': 1,
        'kubelet_runtime_operations_total{operation_type="run_podsandbox"}': 3,
        'kubelet_runtime_operations_total{operation_type="stop_container"}': 1,
        'kubelet_run_podsandbox_duration_seconds_count{runtime_handler=""}': 3,
        'kubelet_pod_start_total_duration_seconds_count': 1,
        'kubelet_pod_start_sli_duration_seconds_bucket{le="4.0"}': 0,
        'kubelet_pod_start_sli_duration_seconds_bucket{le="6.0"}': 1,
        'kubelet_pod_worker_start_duration_seconds_count': 3, 'kubelet_containers_per_pod_count_sum': 3,
    }  # fmt: skip
    errors = 'kubelet_started_containers_errors_total{code="CreateContainerConfigError",container_type="container"}'
    assert found['kubelet_started_containers_total{container_type="container"}'] == 2 + found[errors]
    assert found[errors] >= 1


def test_an_image_that_was_pulled_says_how_long_it_took_and_how_large_it_is(node):
    async def script():
        node.create('p', containers=[{'name': 'c', 'image': 'busybox', 'imagePullPolicy': 'Always'}])
        await asyncio.sleep(5)

    node.run(script)
    text = 'Successfully pulled image "busybox" in 0s (0s including waiting). Image size: 0 bytes.'
    assert [said for *_, said in node.heard('p', 'Pulled')] == [text]


@pytest.mark.parametrize(
    ('seconds', 'text'), [(0.0, '0s'), (0.0123, '12ms'), (6.1, '6.1s'), (12.0, '12s'), (62.5, '1m2.5s')]
)
def test_durations_read_as_they_do_in_go(seconds, text):
    assert duration(seconds) == text
