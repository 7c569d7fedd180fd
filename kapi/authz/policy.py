"""The roles and bindings that every cluster begins with, as data. Source: upstream's bootstrappolicy/policy.go."""

from __future__ import annotations

from typing import Any

Obj = dict[str, Any]

GROUP = 'rbac.authorization.k8s.io'
READ = ['get', 'list', 'watch']
WRITE = ['create', 'delete', 'deletecollection', 'patch', 'update']
AGGREGATE = f'{GROUP}/aggregate-to-'
LABELS = {'kubernetes.io/bootstrapping': 'rbac-defaults'}
AUTOUPDATE = 'rbac.authorization.kubernetes.io/autoupdate'
ANNOTATIONS = {AUTOUPDATE: 'true'}
AUTHENTICATED, UNAUTHENTICATED = 'system:authenticated', 'system:unauthenticated'

_CORE = ['bindings', 'configmaps', 'endpoints', 'events', 'limitranges', 'namespaces/status', 'persistentvolumeclaims',
         'persistentvolumeclaims/status', 'pods', 'pods/log', 'pods/status', 'replicationcontrollers',
         'replicationcontrollers/scale', 'replicationcontrollers/status', 'resourcequotas', 'resourcequotas/status',
         'serviceaccounts', 'services', 'services/status', 'namespaces']  # fmt: skip
_APPS = ['controllerrevisions', 'daemonsets', 'daemonsets/status', 'deployments', 'deployments/scale',
         'deployments/status', 'replicasets', 'replicasets/scale', 'replicasets/status', 'statefulsets',
         'statefulsets/scale', 'statefulsets/status']  # fmt: skip
_VIEWED = {
    '': _CORE, 'apps': _APPS, 'discovery.k8s.io': ['endpointslices'],
    'autoscaling': ['horizontalpodautoscalers', 'horizontalpodautoscalers/status'],
    'batch': ['cronjobs', 'cronjobs/status', 'jobs', 'jobs/status'],
    'policy': ['poddisruptionbudgets', 'poddisruptionbudgets/status'],
    'networking.k8s.io': ['ingresses', 'ingresses/status', 'networkpolicies'],
}  # fmt: skip
_EDITED = {
    '': ['configmaps', 'events', 'persistentvolumeclaims', 'pods', 'pods/attach', 'pods/exec', 'pods/portforward',
         'pods/proxy', 'replicationcontrollers', 'replicationcontrollers/scale', 'secrets', 'serviceaccounts',
         'services', 'services/proxy'],
    'apps': ['daemonsets', 'deployments', 'deployments/rollback', 'deployments/scale', 'replicasets',
             'replicasets/scale', 'statefulsets', 'statefulsets/scale'],
    'autoscaling': ['horizontalpodautoscalers'], 'batch': ['cronjobs', 'jobs'], 'policy': ['poddisruptionbudgets'],
    'networking.k8s.io': ['ingresses', 'networkpolicies'], 'coordination.k8s.io': ['leases'],
}  # fmt: skip


def rule(verbs: list[str], groups: list[str], resources: list[str]) -> Obj:
    return {'verbs': verbs, 'apiGroups': groups, 'resources': resources}


def paths(*listed: str) -> Obj:
    return {'verbs': ['get'], 'nonResourceURLs': list(listed)}


def _role(name: str, *rules: Obj, aggregates: str = '') -> Obj:
    role: Obj = {
        'metadata': {'name': name, 'labels': dict(LABELS), 'annotations': dict(ANNOTATIONS)},
        'rules': list(rules),
    }
    if aggregates:
        role['aggregationRule'] = {'clusterRoleSelectors': [{'matchLabels': {f'{AGGREGATE}{aggregates}': 'true'}}]}
    return role


def _binding(role: str, *groups: str) -> Obj:
    return {
        'metadata': {'name': role, 'labels': dict(LABELS), 'annotations': dict(ANNOTATIONS)},
        'roleRef': {'apiGroup': GROUP, 'kind': 'ClusterRole', 'name': role},
        'subjects': [{'apiGroup': GROUP, 'kind': 'Group', 'name': g} for g in groups],
    }


def cluster_roles() -> list[Obj]:
    view = [rule(READ, [g], names) for g, names in _VIEWED.items()]
    secrets = rule(READ, [''], ['secrets', 'pods/attach', 'pods/exec', 'pods/portforward', 'pods/proxy'])
    edit = [rule(WRITE, [g], names) for g, names in _EDITED.items()]
    extra = [
        rule(['create'], [''], ['pods/eviction', 'serviceaccounts/token']),
        rule(['impersonate'], [''], ['serviceaccounts']),
    ]
    rbac = rule([*READ, *WRITE], [GROUP], ['roles', 'rolebindings'])
    review = rule(['create'], ['authorization.k8s.io'], ['localsubjectaccessreviews'])
    reviews = ['selfsubjectaccessreviews', 'selfsubjectrulesreviews']
    return [
        _role('cluster-admin', rule(['*'], ['*'], ['*']), {'verbs': ['*'], 'nonResourceURLs': ['*']}),
        _role('admin', aggregates='admin'),
        _role('edit', aggregates='edit'),
        _role('view', aggregates='view'),
        _aggregated('system:aggregate-to-view', ('view', 'edit', 'admin'), *view),
        _aggregated('system:aggregate-to-edit', ('edit', 'admin'), secrets, *edit, *extra),
        _aggregated('system:aggregate-to-admin', ('admin',), rbac, review),
        _aggregated('system:aggregated-metrics-reader', ('view', 'edit', 'admin'),
                    rule(READ, ['metrics.k8s.io'], ['nodes', 'pods'])),
        _role('system:basic-user', rule(['create'], ['authorization.k8s.io'], reviews),
              rule(['create'], ['authentication.k8s.io'], ['selfsubjectreviews'])),
        _role('system:discovery', paths('/api', '/api/*', '/apis', '/apis/*', '/healthz', '/livez', '/openapi',
                                        '/openapi/*', '/readyz', '/version', '/version/')),
        _role('system:service-account-issuer-discovery',
              paths('/.well-known/openid-configuration', '/.well-known/openid-configuration/', '/openid/v1/jwks',
                    '/openid/v1/jwks/')),
        _role('system:auth-delegator', rule(['create'], ['authentication.k8s.io'], ['tokenreviews']),
              rule(['create'], ['authorization.k8s.io'], ['subjectaccessreviews'])),
        _role('system:node-bootstrapper', rule(['create', 'get', 'list', 'watch'], ['certificates.k8s.io'],
                                               ['certificatesigningrequests'])),
        _role('system:certificates.k8s.io:certificatesigningrequests:nodeclient',
              rule(['create'], ['certificates.k8s.io'], ['certificatesigningrequests/nodeclient'])),
        _role('system:certificates.k8s.io:certificatesigningrequests:selfnodeclient',
              rule(['create'], ['certificates.k8s.io'], ['certificatesigningrequests/selfnodeclient'])),
        _role('system:certificates.k8s.io:certificatesigningrequests:selfnodeserver',
              rule(['create'], ['certificates.k8s.io'], ['certificatesigningrequests/selfnodeserver'])),
        _role('system:public-info-viewer', paths('/healthz', '/livez', '/readyz', '/version', '/version/')),
    ]  # fmt: skip


def _aggregated(name: str, into: tuple[str, ...], *rules: Obj) -> Obj:
    role = _role(name, *rules)
    role['metadata']['labels'] |= {f'{AGGREGATE}{target}': 'true' for target in into}
    return role


def cluster_role_bindings() -> list[Obj]:
    return [
        _binding('cluster-admin', 'system:masters'),
        _binding('system:basic-user', AUTHENTICATED),
        _binding('system:discovery', AUTHENTICATED),
        _binding('system:service-account-issuer-discovery', 'system:serviceaccounts'),
        # A join token is good for a node's credential, and a node may renew its own: kubeadm binds the same.
        _binding('system:node-bootstrapper', 'system:bootstrappers'),
        _binding('system:certificates.k8s.io:certificatesigningrequests:nodeclient', 'system:bootstrappers'),
        _binding('system:certificates.k8s.io:certificatesigningrequests:selfnodeclient', 'system:nodes'),
        _binding('system:certificates.k8s.io:certificatesigningrequests:selfnodeserver', 'system:nodes'),
        _binding('system:public-info-viewer', AUTHENTICATED, UNAUTHENTICATED),
    ]
