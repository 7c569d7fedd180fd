"""Who says what: the events of controllers have upstream's components, reasons and words."""

from __future__ import annotations

import asyncio

from kcontrol.kinds import (
    CRONJOBS,
    HORIZONTALPODAUTOSCALERS,
    PODDISRUPTIONBUDGETS,
    REPLICATIONCONTROLLERS,
    STATEFULSETS,
)
from kcore.meta.gvk import DEPLOYMENTS, EVENTS
from kcore.meta.objects import get_path
from tests.kcontrol.test_settling import CONTAINERS, template, workload
from tests.kcontrol.virtual import Nodes, Plane, run_virtually

EXPECTED = {
    ('node-controller', 'Node', 'RegisteredNode', 'Node a event: Registered Node a in Controller'),
    ('statefulset-controller', 'StatefulSet', 'SuccessfulCreate', 'create Pod db-0 in StatefulSet db successful'),
    ('statefulset-controller', 'StatefulSet', 'SuccessfulCreate', 'create Pod db-1 in StatefulSet db successful'),
    ('statefulset-controller', 'StatefulSet', 'SuccessfulDelete', 'delete Pod db-1 in StatefulSet db successful'),
    ('replication-controller', 'ReplicationController', 'SuccessfulCreate', 'Created pod: rc-'),
    ('controllermanager', 'PodDisruptionBudget', 'NoPods', 'No matching pods found'),
    ('deployment-controller', 'Deployment', 'ScalingReplicaSet', 'Scaled up replica set web-'),
    ('replicaset-controller', 'ReplicaSet', 'SuccessfulCreate', 'Created pod: web-'),
    ('horizontal-pod-autoscaler', 'HorizontalPodAutoscaler', 'FailedGetResourceMetric', 'failed to get cpu'),
    ('horizontal-pod-autoscaler', 'HorizontalPodAutoscaler', 'FailedComputeMetricsReplicas', 'invalid metrics (1 inv'),
    ('cronjob-controller', 'CronJob', 'SuccessfulCreate', 'Created job tick-'),
    ('cronjob-controller', 'CronJob', 'SawCompletedJob', 'Saw completed job: tick-'),
    ('cronjob-controller', 'CronJob', 'SuccessfulDelete', 'Deleted job tick-'),
    ('job-controller', 'Job', 'SuccessfulCreate', 'Created pod: tick-'),
    ('job-controller', 'Job', 'Completed', 'Job completed'),
}
"""(component, kind, reason, how the message begins)."""


def test_events_have_upstreams_components_reasons_and_words(pki, monkeypatch):
    async def scenario(plane: Plane) -> None:
        nodes = await Nodes(plane).start('a')
        nodes.finish = lambda pod: 'Succeeded' if get_path(pod, 'spec.restartPolicy') == 'Never' else None
        await plane.controllers()
        job = {'template': {'spec': {'restartPolicy': 'Never', 'containers': CONTAINERS}}}
        target = {'apiVersion': 'apps/v1', 'kind': 'Deployment', 'name': 'web'}
        for resource, name, spec in (
            (STATEFULSETS, 'db', workload('db', replicas=2, serviceName='x')),
            (REPLICATIONCONTROLLERS, 'rc', {'replicas': 1, 'selector': {'app': 'rc'}, 'template': template('rc')}),
            (PODDISRUPTIONBUDGETS, 'none', {'minAvailable': 1, 'selector': {'matchLabels': {'app': 'nobody'}}}),
            (DEPLOYMENTS, 'web', workload('web', replicas=1)),
            (HORIZONTALPODAUTOSCALERS, 'web', {'scaleTargetRef': target, 'minReplicas': 1, 'maxReplicas': 2}),
            (CRONJOBS, 'tick', {
                'schedule': '* * * * *', 'successfulJobsHistoryLimit': 1, 'jobTemplate': {'spec': job},
            }),
        ):  # fmt: skip
            await plane.admin.create(resource, {'metadata': {'name': name, 'namespace': 'default'}, 'spec': spec})
        await asyncio.sleep(60)
        await plane.admin.patch(STATEFULSETS, 'db', {'spec': {'replicas': 1}}, 'default')
        await asyncio.sleep(200)
        said = [
            (e['source']['component'], e['involvedObject']['kind'], e['reason'], e['message'])
            for e in (await plane.admin.list(EVENTS)).items
        ]
        missing = [one for one in EXPECTED if not any(s[:3] == one[:3] and s[3].startswith(one[3]) for s in said)]
        assert missing == [], sorted(set(said))

    run_virtually(scenario, pki, monkeypatch)
