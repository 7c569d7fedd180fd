"""The life of an object through every verb, for the kinds whose conformance test is just that."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.hush import hushed

conformance = pytest.mark.conformance
Obj = dict[str, Any]
GONE = 'gracePeriodSeconds=0&propagationPolicy=Background'


def _where(group: str, plural: str, namespace: str | None) -> str:
    base = f'/apis/{group}' if '/' in group else f'/api/{group}'
    return f'{base}/namespaces/{namespace}/{plural}' if namespace else f'{base}/{plural}'


async def life(api: Any, group: str, plural: str, obj: Obj, namespace: str | None = 'default') -> Obj:
    """Create, get, list (here and everywhere), watch, patch, update, delete, delete by label; the object as patched."""
    path = _where(group, plural, namespace)
    label = 'labelSelector=life%3Dyes'
    wanted = {**obj, 'metadata': {**obj.get('metadata', {}), 'name': 'life', 'labels': {'life': 'yes'}}}
    made = await api.post(path, wanted)
    assert made.status == 201, made.text
    rv = made.json['metadata']['resourceVersion']
    assert (await api.get(f'{path}/life')).json['metadata']['uid'] == made.json['metadata']['uid']
    for listing in (path, _where(group, plural, None)):
        assert [o['metadata']['name'] for o in (await api.get(f'{listing}?{label}')).json['items']] == ['life']
    async with api.watch(f'{path}?watch=true&{label}&resourceVersion={rv}') as event:
        patched = await api.patch(f'{path}/life', {'metadata': {'annotations': {'patched': 'true'}}})
        assert patched.status == 200, patched.text
        seen = await event()
        assert (seen['type'], seen['object']['metadata']['annotations']['patched']) == ('MODIFIED', 'true')
        seen['object']['metadata']['annotations']['updated'] = 'true'
        updated = await api.put(f'{path}/life', seen['object'])
        assert updated.status == 200, updated.text
        assert (await event())['object']['metadata']['annotations']['updated'] == 'true'
        assert (await api.delete(f'{path}/life?{GONE}')).status == 200
        assert (await event())['type'] == 'DELETED'
    assert (await api.get(f'{path}/life')).status == 404
    for name in ('a', 'b'):
        assert (await api.post(path, {**wanted, 'metadata': {**wanted['metadata'], 'name': name}})).status == 201
    assert (await api.delete(f'{path}?{label}&{GONE}')).status == 200
    assert (await api.get(f'{path}?{label}')).json['items'] == []
    return updated.json


async def through_status(api: Any, path: str, status: Obj) -> None:
    """Get, patch and update through /status leave spec alone."""
    before = (await api.get(f'{path}/status')).json
    patched = await api.patch(f'{path}/status', {'metadata': {'annotations': {'s': 'patched'}}, 'status': status})
    assert patched.status == 200, patched.text
    assert patched.json['metadata']['annotations']['s'] == 'patched'
    patched.json['metadata']['annotations']['s'] = 'updated'
    patched.json['spec'] = {}
    updated = await api.put(f'{path}/status', patched.json)
    assert updated.status == 200, updated.text
    assert updated.json['metadata']['annotations']['s'] == 'updated'
    assert updated.json.get('spec') == before.get('spec')


TEMPLATE: Obj = {
    'metadata': {'labels': {'x': 'y'}},
    'spec': {'restartPolicy': 'Never', 'containers': [{'name': 'c', 'image': 'i'}]},
}


@conformance('ConfigMap should run through a ConfigMap lifecycle')
async def test_config_map(api):
    await life(api, 'v1', 'configmaps', {'data': {'a': 'b'}})


@conformance('Secrets should patch a secret')
async def test_secret(api):
    await life(api, 'v1', 'secrets', {'stringData': {'a': hushed('b')}})


@conformance('ServiceAccounts should run through the lifecycle of a ServiceAccount')
async def test_service_account(api):
    await life(api, 'v1', 'serviceaccounts', {})


@conformance('ServiceAccounts should update a ServiceAccount')
async def test_a_service_account_is_updated(api):
    path = '/api/v1/namespaces/default/serviceaccounts'
    made = (await api.post(path, {'metadata': {'name': 's'}})).json
    updated = await api.put(f'{path}/s', {**made, 'automountServiceAccountToken': False})
    assert updated.json['automountServiceAccountToken'] is False


@conformance('PodTemplates should run the lifecycle of PodTemplates')
async def test_pod_template(api):
    await life(api, 'v1', 'podtemplates', {'template': TEMPLATE})


@conformance('PodTemplates should replace a pod template')
async def test_a_pod_template_is_replaced(api):
    path = '/api/v1/namespaces/default/podtemplates'
    made = (await api.post(path, {'metadata': {'name': 't'}, 'template': TEMPLATE})).json
    made['template']['spec']['containers'][0]['image'] = 'other'
    assert (await api.put(f'{path}/t', made)).json['template']['spec']['containers'][0]['image'] == 'other'


@conformance('PodTemplates should delete a collection of pod templates')
async def test_pod_templates_are_deleted_by_label(api):
    await life(api, 'v1', 'podtemplates', {'template': TEMPLATE})


@conformance('CronJob should support CronJob API operations')
async def test_cron_job(api):
    job = {'spec': {'template': TEMPLATE}}
    await life(api, 'batch/v1', 'cronjobs', {'spec': {'schedule': '* * * * *', 'jobTemplate': job}})
    path = '/apis/batch/v1/namespaces/default/cronjobs'
    body = {'metadata': {'name': 'c'}, 'spec': {'schedule': '* * * * *', 'jobTemplate': job}}
    await api.post(path, body)
    await through_status(api, f'{path}/c', {'lastScheduleTime': '2026-01-01T00:00:00Z'})


@conformance('Ingress API should support creating Ingress API operations')
async def test_ingress(api):
    spec = {'defaultBackend': {'service': {'name': 's', 'port': {'number': 80}}}}
    await life(api, 'networking.k8s.io/v1', 'ingresses', {'spec': spec})
    path = '/apis/networking.k8s.io/v1/namespaces/default/ingresses'
    await api.post(path, {'metadata': {'name': 'i'}, 'spec': spec})
    await through_status(api, f'{path}/i', {'loadBalancer': {'ingress': [{'ip': '169.1.1.1'}]}})


@conformance('IngressClass API should support creating IngressClass API operations')
async def test_ingress_class(api):
    await life(api, 'networking.k8s.io/v1', 'ingressclasses', {'spec': {'controller': 'example.com/c'}}, None)


@conformance('EndpointSlice should support creating EndpointSlice API operations')
async def test_endpoint_slice(api):
    await life(
        api, 'discovery.k8s.io/v1', 'endpointslices',
        {'addressType': 'IPv4', 'endpoints': [{'addresses': ['10.0.0.1']}], 'ports': [{'port': 80}]},
    )  # fmt: skip


@conformance('Lease lease API should be available')
async def test_lease(api):
    await life(api, 'coordination.k8s.io/v1', 'leases', {'spec': {'holderIdentity': 'h', 'leaseDurationSeconds': 30}})


@conformance('RuntimeClass should support RuntimeClasses API operations')
async def test_runtime_class(api):
    await life(api, 'node.k8s.io/v1', 'runtimeclasses', {'handler': 'h'}, None)


@conformance(
    'SchedulerPreemption [Serial] PriorityClass endpoints verify PriorityClass endpoints can be operated with '
    'different HTTP methods'
)
async def test_priority_class(api):
    await life(api, 'scheduling.k8s.io/v1', 'priorityclasses', {'value': 10}, None)
    path = '/apis/scheduling.k8s.io/v1/priorityclasses'
    await api.post(path, {'metadata': {'name': 'p'}, 'value': 1})
    assert (await api.patch(f'{path}/p', {'value': 2})).status == 422


@conformance('StorageClasses CSI Conformance should run through the lifecycle of a StorageClass')
async def test_storage_class(api):
    await life(api, 'storage.k8s.io/v1', 'storageclasses', {'provisioner': 'example.com/p'}, None)


@conformance('CSIInlineVolumes should run through the lifecycle of a CSIDriver')
async def test_csi_driver(api):
    await life(api, 'storage.k8s.io/v1', 'csidrivers', {'spec': {'attachRequired': False}}, None)


@conformance('CSINodes CSI Conformance should run through the lifecycle of a csinode')
async def test_csi_node(api):
    await life(api, 'storage.k8s.io/v1', 'csinodes', {'spec': {'drivers': []}}, None)


@conformance('CSIStorageCapacity should support CSIStorageCapacities API operations')
async def test_csi_storage_capacity(api):
    await life(api, 'storage.k8s.io/v1', 'csistoragecapacities', {'storageClassName': 'x', 'capacity': '1Gi'})


ATTACHMENT = {'spec': {'attacher': 'example.com', 'nodeName': 'n', 'source': {'persistentVolumeName': 'v'}}}


@conformance('VolumeAttachment Conformance should run through the lifecycle of a VolumeAttachment')
async def test_volume_attachment(api):
    await life(api, 'storage.k8s.io/v1', 'volumeattachments', ATTACHMENT, None)


@conformance('VolumeAttachment Conformance should apply changes to a volumeattachment status')
async def test_volume_attachment_status(api):
    path = '/apis/storage.k8s.io/v1/volumeattachments'
    await api.post(path, {'metadata': {'name': 'v'}, **ATTACHMENT})
    await through_status(api, f'{path}/v', {'attached': True})


@conformance('Namespaces [Serial] should apply changes to a namespace status')
async def test_namespace_status(api):
    await api.post('/api/v1/namespaces', {'metadata': {'name': 'n'}})
    await through_status(api, '/api/v1/namespaces/n', {'phase': 'Active', 'conditions': []})


@conformance('Namespaces [Serial] should patch a Namespace')
async def test_a_namespace_is_patched(api):
    await api.post('/api/v1/namespaces', {'metadata': {'name': 'n'}})
    patched = await api.patch('/api/v1/namespaces/n', {'metadata': {'labels': {'a': 'b'}}}, 'strategic-merge-patch')
    assert patched.json['metadata']['labels']['a'] == 'b'


@conformance('Namespaces [Serial] should apply an update to a Namespace')
async def test_a_namespace_is_updated(api):
    made = (await api.post('/api/v1/namespaces', {'metadata': {'name': 'n'}})).json
    made['metadata']['labels']['updated'] = 'yes'
    assert (await api.put('/api/v1/namespaces/n', made)).json['metadata']['labels']['updated'] == 'yes'


@conformance('ResourceQuota should apply changes to a resourcequota status')
async def test_resource_quota_status(api):
    path = '/api/v1/namespaces/default/resourcequotas'
    await api.post(path, {'metadata': {'name': 'q'}, 'spec': {'hard': {'pods': '1'}}})
    await through_status(api, f'{path}/q', {'hard': {'pods': '1'}, 'used': {'pods': '0'}})


@conformance('ResourceQuota should manage the lifecycle of a ResourceQuota')
async def test_resource_quota(api):
    await life(api, 'v1', 'resourcequotas', {'spec': {'hard': {'pods': '1'}}})


@conformance('LimitRange should list, patch and delete a LimitRange by collection')
async def test_limit_range(api):
    limits = [{'type': 'Container', 'default': {'cpu': '1'}}]
    await life(api, 'v1', 'limitranges', {'spec': {'limits': limits}})


BUDGETS = '/apis/policy/v1/namespaces/{}/poddisruptionbudgets'
BUDGET: Obj = {'spec': {'minAvailable': 1, 'selector': {'matchLabels': {'foo': 'bar'}}}}


@conformance('DisruptionController should create a PodDisruptionBudget')
async def test_pod_disruption_budget(api):
    await life(api, 'policy/v1', 'poddisruptionbudgets', BUDGET)
    path = BUDGETS.format('default')
    await api.post(path, {'metadata': {'name': 'b'}, **BUDGET})
    patched = await api.patch(f'{path}/b', {'spec': {'minAvailable': '1%'}})
    assert patched.json['spec']['minAvailable'] == '1%'


@conformance(
    'DisruptionController Listing PodDisruptionBudgets for all namespaces should list and delete a collection of '
    'PodDisruptionBudgets'
)
async def test_budgets_of_all_namespaces_are_listed_and_deleted_by_namespace(api):
    await api.post('/api/v1/namespaces', {'metadata': {'name': 'n'}})
    for namespace, name in (('default', 'a'), ('default', 'b'), ('n', 'c')):
        await api.post(BUDGETS.format(namespace), {'metadata': {'name': name, 'labels': {'x': 'y'}}, **BUDGET})
    everywhere = '/apis/policy/v1/poddisruptionbudgets?labelSelector=x%3Dy'
    assert [b['metadata']['name'] for b in (await api.get(everywhere)).json['items']] == ['a', 'b', 'c']
    assert (await api.delete(BUDGETS.format('default'))).status == 200
    assert [b['metadata']['name'] for b in (await api.get(everywhere)).json['items']] == ['c']


@conformance('DisruptionController should update/patch PodDisruptionBudget status')
async def test_pod_disruption_budget_status(api):
    path = BUDGETS.format('default')
    await api.post(path, {'metadata': {'name': 'b'}, **BUDGET})
    status = {'currentHealthy': 1, 'desiredHealthy': 1, 'disruptionsAllowed': 0, 'expectedPods': 1}
    await through_status(api, f'{path}/b', {**status, 'disruptedPods': {'p': '2026-01-01T00:00:00Z'}})
    dropped = await api.patch(f'{path}/b/status', {'status': {'disruptedPods': None}})
    assert 'disruptedPods' not in dropped.json['status']


@conformance('Job should manage the lifecycle of a job')
async def test_job(api):
    updated = await life(api, 'batch/v1', 'jobs', {'spec': {'suspend': True, 'parallelism': 2, 'template': TEMPLATE}})
    assert updated['spec']['suspend'] is True
    path = '/apis/batch/v1/namespaces/default/jobs'
    await api.post(path, {'metadata': {'name': 'j'}, 'spec': {'suspend': True, 'template': TEMPLATE}})
    resumed = await api.patch(f'{path}/j', {'spec': {'suspend': False}}, 'strategic-merge-patch')
    assert resumed.json['spec']['suspend'] is False
    fixed = await api.patch(f'{path}/j', {'spec': {'template': {'metadata': {'labels': {'x': 'z'}}}}})
    assert fixed.status == 422


VOLUME: Obj = {'spec': {
    'capacity': {'storage': '2Gi'}, 'accessModes': ['ReadWriteOnce'], 'persistentVolumeReclaimPolicy': 'Retain',
    'csi': {'driver': 'example.com', 'volumeHandle': 'h'}, 'storageClassName': 'x',
}}  # fmt: skip
CLAIM: Obj = {'spec': {
    'accessModes': ['ReadWriteOnce'], 'resources': {'requests': {'storage': '1Gi'}}, 'storageClassName': 'x',
}}  # fmt: skip


@conformance('PersistentVolumes CSI Conformance should run through the lifecycle of a PV and a PVC')
async def test_persistent_volume_and_claim(api):
    await life(api, 'v1', 'persistentvolumes', VOLUME, None)
    await life(api, 'v1', 'persistentvolumeclaims', CLAIM)


@conformance('PersistentVolumes CSI Conformance should apply changes to a pv/pvc status')
async def test_persistent_volume_and_claim_status(api):
    claims = '/api/v1/namespaces/default/persistentvolumeclaims'
    await api.post('/api/v1/persistentvolumes', {'metadata': {'name': 'v'}, **VOLUME})
    await api.post(claims, {'metadata': {'name': 'c'}, **CLAIM})
    await through_status(api, '/api/v1/persistentvolumes/v', {'phase': 'Failed', 'message': 'm', 'reason': 'E2E'})
    condition = {'type': 'StatusUpdate', 'status': 'True', 'lastTransitionTime': '2026-01-01T00:00:00Z'}
    await through_status(api, f'{claims}/c', {'conditions': [condition]})


@conformance('CSIInlineVolumes should support CSIVolumeSource in Pod API')
async def test_a_pod_may_carry_an_inline_csi_volume(api):
    await api.post('/api/v1/namespaces/default/serviceaccounts', {'metadata': {'name': 'default'}})
    label = {'security.kubernetes.io/csi-ephemeral-volume-profile': 'restricted'}
    spec = {'volumeLifecycleModes': ['Ephemeral'], 'podInfoOnMount': True}
    await api.post('/apis/storage.k8s.io/v1/csidrivers', {'metadata': {'name': 'd.example.com', 'labels': label},
                                                          'spec': spec})  # fmt: skip
    volume = {'name': 'v', 'csi': {'driver': 'd.example.com', 'readOnly': True, 'volumeAttributes': {'a': 'b'}}}
    mount = {'name': 'v', 'mountPath': '/mnt'}
    pod = {'spec': {'containers': [{'name': 'c', 'image': 'i', 'volumeMounts': [mount]}], 'volumes': [volume]}}
    await life(api, 'v1', 'pods', pod)
    made = await api.post('/api/v1/namespaces/default/pods', {'metadata': {'name': 'p'}, **pod})
    assert volume in made.json['spec']['volumes']


@conformance('Namespaces [Serial] should apply a finalizer to a Namespace')
async def test_a_namespace_takes_a_finalizer_and_gives_it_back(api):
    made = (await api.post('/api/v1/namespaces', {'metadata': {'name': 'n'}})).json
    assert made['spec']['finalizers'] == ['kubernetes']
    made['spec']['finalizers'].append('e2e.example.com/fakeFinalizer')
    held = await api.put('/api/v1/namespaces/n/finalize', made)
    assert held.json['spec']['finalizers'] == ['kubernetes', 'e2e.example.com/fakeFinalizer']
    assert (await api.get('/api/v1/namespaces/n')).json['spec'] == held.json['spec']
    held.json['spec']['finalizers'].pop()
    assert (await api.put('/api/v1/namespaces/n/finalize', held.json)).json['spec']['finalizers'] == ['kubernetes']


@conformance('Services should delete a collection of services')
async def test_services(api):
    await life(api, 'v1', 'services', {'spec': {'ports': [{'port': 80}]}})


@conformance('Services should complete a service status lifecycle')
async def test_service_status(api):
    path = '/api/v1/namespaces/default/services'
    await api.post(path, {'metadata': {'name': 's'}, 'spec': {'ports': [{'port': 80}], 'type': 'LoadBalancer'}})
    await through_status(api, f'{path}/s', {'loadBalancer': {'ingress': [{'ip': '203.0.113.1'}]}})


@conformance('Services should test the lifecycle of an Endpoint')
async def test_endpoints(api):
    subsets = [{'addresses': [{'ip': '10.0.0.1'}], 'ports': [{'port': 80}]}]
    await life(api, 'v1', 'endpoints', {'subsets': subsets})


@conformance('Events should delete a collection of events', 'Events should manage the lifecycle of an event')
async def test_events(api):
    await life(api, 'v1', 'events', {'involvedObject': {'namespace': 'default'}, 'message': 'm'})


@conformance(
    'Events API should delete a collection of events',
    'Events API should ensure that an event can be fetched, patched, deleted, and listed',
)
async def test_events_of_the_newer_group(api):
    event = {
        'regarding': {'namespace': 'default'}, 'reason': 'r', 'action': 'a', 'type': 'Normal', 'note': 'n',
        'reportingController': 'c', 'reportingInstance': 'i', 'eventTime': '2026-01-01T00:00:00.000000Z',
    }  # fmt: skip
    await life(api, 'events.k8s.io/v1', 'events', event)


@conformance('Node Lifecycle should run through the lifecycle of a node')
async def test_node(api):
    await life(api, 'v1', 'nodes', {'status': {'capacity': {'cpu': '1'}}}, None)


@conformance('API priority and fairness should support FlowSchema API operations')
async def test_flow_schema(api):
    rule = {'subjects': [{'kind': 'Group', 'group': {'name': 'g'}}],
            'nonResourceRules': [{'verbs': ['get'], 'nonResourceURLs': ['/x']}]}  # fmt: skip
    spec = {'priorityLevelConfiguration': {'name': 'global-default'}, 'matchingPrecedence': 9000, 'rules': [rule]}
    await life(api, 'flowcontrol.apiserver.k8s.io/v1', 'flowschemas', {'spec': spec}, None)
    path = '/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas'
    await api.post(path, {'metadata': {'name': 'f'}, 'spec': spec})
    condition = {'type': 'Dangling', 'status': 'False', 'reason': 'Found', 'lastTransitionTime': '2026-01-01T00:00:00Z'}
    await through_status(api, f'{path}/f', {'conditions': [condition]})


@conformance('API priority and fairness should support PriorityLevelConfiguration API operations')
async def test_priority_level_configuration(api):
    spec = {'type': 'Limited', 'limited': {'nominalConcurrencyShares': 2, 'limitResponse': {'type': 'Reject'}}}
    await life(api, 'flowcontrol.apiserver.k8s.io/v1', 'prioritylevelconfigurations', {'spec': spec}, None)
    path = '/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations'
    await api.post(path, {'metadata': {'name': 'l'}, 'spec': spec})
    condition = {'type': 'Fine', 'status': 'True', 'reason': 'Tried', 'lastTransitionTime': '2026-01-01T00:00:00Z'}
    await through_status(api, f'{path}/l', {'conditions': [condition]})


POLICY: Obj = {
    'matchConstraints': {'resourceRules': [
        {'apiGroups': ['apps'], 'apiVersions': ['v1'], 'operations': ['CREATE'], 'resources': ['deployments']}]},
    'validations': [{'expression': 'object.spec.replicas <= 100'}],
}  # fmt: skip


@conformance(
    'ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicy API operations'
)
async def test_validating_admission_policy(api):
    await life(api, 'admissionregistration.k8s.io/v1', 'validatingadmissionpolicies', {'spec': POLICY}, None)
    path = '/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies'
    await api.post(path, {'metadata': {'name': 'v'}, 'spec': POLICY})
    await through_status(api, f'{path}/v', {'observedGeneration': 1})


@conformance(
    'ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicyBinding API operations'
)
async def test_validating_admission_policy_binding(api):
    spec = {'policyName': 'replicas', 'validationActions': ['Deny']}
    await life(api, 'admissionregistration.k8s.io/v1', 'validatingadmissionpolicybindings', {'spec': spec}, None)


@conformance('Certificates API [Privileged:ClusterAdmin] should support CSR API operations')
async def test_certificate_signing_request(api):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, 'e2e')])
    pem = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    text = b64encode(pem.public_bytes(serialization.Encoding.PEM)).decode()
    spec = {'request': text, 'signerName': 'example.com/signer', 'usages': ['digital signature', 'client auth']}
    await life(api, 'certificates.k8s.io/v1', 'certificatesigningrequests', {'spec': spec}, None)
    path = '/apis/certificates.k8s.io/v1/certificatesigningrequests'
    made = (await api.post(path, {'metadata': {'name': 'r'}, 'spec': spec})).json
    approved = {'type': 'Approved', 'status': 'True', 'reason': 'Tried', 'message': 'by a test'}
    made['status'] = {'conditions': [approved]}
    decided = await api.put(f'{path}/r/approval', made)
    assert decided.status == 200, decided.text
    assert decided.json['status']['conditions'][0]['type'] == 'Approved'
    failed = {'type': 'Failed', 'status': 'True', 'reason': 'Tried', 'message': 'by a test'}
    said = await api.patch(f'{path}/r/status', {'status': {'conditions': [approved, failed]}})
    assert [c['type'] for c in said.json['status']['conditions']] == ['Approved', 'Failed']


@conformance('ServiceAccounts should create a serviceAccountToken and ensure a successful TokenReview')
async def test_a_token_of_a_service_account_is_reviewed(api):
    accounts = '/api/v1/namespaces/default/serviceaccounts'
    await api.post(accounts, {'metadata': {'name': 's'}})
    asked = {'apiVersion': 'authentication.k8s.io/v1', 'kind': 'TokenRequest', 'spec': {'expirationSeconds': 600}}
    given = await api.post(f'{accounts}/s/token', asked)
    assert given.status == 201, given.text
    reviews = '/apis/authentication.k8s.io/v1/tokenreviews'
    token = given.json['status']['token']
    status = (await api.post(reviews, {'spec': {'token': token}})).json['status']
    assert (status['authenticated'], status['user']['username']) == (True, 'system:serviceaccount:default:s')
    assert 'system:serviceaccounts:default' in status['user']['groups']
    assert not (await api.post(reviews, {'spec': {'token': token + 'x'}})).json['status'].get('authenticated')


@conformance('SubjectReview should support SubjectReview API operations')
async def test_what_a_subject_may_is_reviewed(api):
    await api.post('/api/v1/namespaces/default/serviceaccounts', {'metadata': {'name': 's'}})
    rbac = '/apis/rbac.authorization.k8s.io/v1/namespaces/default'
    subject = {'kind': 'ServiceAccount', 'name': 's', 'namespace': 'default'}
    rule = {'apiGroups': [''], 'resources': ['configmaps'], 'verbs': ['get']}
    await api.post(f'{rbac}/roles', {'metadata': {'name': 'r'}, 'rules': [rule]})
    ref = {'apiGroup': 'rbac.authorization.k8s.io', 'kind': 'Role', 'name': 'r'}
    await api.post(f'{rbac}/rolebindings', {'metadata': {'name': 'r'}, 'subjects': [subject], 'roleRef': ref})
    base, user = '/apis/authorization.k8s.io/v1', 'system:serviceaccount:default:s'
    for path in (f'{base}/subjectaccessreviews', f'{base}/namespaces/default/localsubjectaccessreviews'):
        for verb, allowed in (('get', True), ('delete', False)):
            asked = {'namespace': 'default', 'verb': verb, 'resource': 'configmaps'}
            review = await api.post(path, {'metadata': {'namespace': 'default'} if 'local' in path else {},
                                           'spec': {'user': user, 'resourceAttributes': asked}})  # fmt: skip
            assert review.status == 201, review.text
            assert bool(review.json['status']['allowed']) is allowed, (path, verb)


@conformance('LimitRange should create a LimitRange with defaults and ensure pod has those defaults applied.')
async def test_a_limit_range_gives_defaults_and_bounds(api):
    core = '/api/v1/namespaces/default'
    await api.post(f'{core}/serviceaccounts', {'metadata': {'name': 'default'}})
    item = {
        'type': 'Container', 'min': {'cpu': '50m', 'memory': '100Mi'}, 'max': {'cpu': '500m', 'memory': '500Mi'},
        'default': {'cpu': '500m', 'memory': '500Mi'}, 'defaultRequest': {'cpu': '100m', 'memory': '200Mi'},
    }  # fmt: skip
    assert (
        await api.post(f'{core}/limitranges', {'metadata': {'name': 'l'}, 'spec': {'limits': [item]}})
    ).status == 201
    await api.get(f'{core}/limitranges')

    async def resources(name: str, **given: Obj) -> Any:
        container = {'name': 'c', 'image': 'i', 'resources': given}
        made = await api.post(f'{core}/pods', {'metadata': {'name': name}, 'spec': {'containers': [container]}})
        return made.json['spec']['containers'][0]['resources'] if made.status == 201 else made.status

    defaults = {'limits': item['default'], 'requests': item['defaultRequest']}
    assert await resources('silent') == defaults
    mine = {'limits': {'cpu': '300m', 'memory': '300Mi'}, 'requests': {'cpu': '200m', 'memory': '250Mi'}}
    assert await resources('outspoken', **mine) == mine
    assert await resources('small', requests={'cpu': '10m', 'memory': '50Mi'}) == 403
    assert await resources('large', limits={'cpu': '600m', 'memory': '600Mi'}) == 403
    assert (await api.patch(f'{core}/limitranges/l', {'spec': {'limits': [{**item, 'min': {}}]}})).status == 200
    await api.get(f'{core}/limitranges')
    assert await resources('small', requests={'cpu': '10m', 'memory': '50Mi'}) != 403
    assert (await api.delete(f'{core}/limitranges/l')).status == 200
    await api.get(f'{core}/limitranges')
    assert await resources('free') == {}
