"""ServiceAccount: a pod runs as `default` unless it names another account, and carries that account's token.

The token is a projected volume at the place where in-cluster clients look, unless the pod (first) or the account says
no. Differs from upstream: a missing `default` account is no reason to refuse, because it is made a moment after its
namespace; see docs/divergences.md. Source: plugin/pkg/admission/serviceaccount/admission.go.
"""

from __future__ import annotations

from typing import Any

from kapi.admission.chain import Attributes, Operation, Plugin
from kapi.errors import Forbidden
from kapi.registry.metadata import generated_name
from kapi.storage.cache import Cache
from kcore.env import Env
from kcore.meta.gvk import PODS

Obj = dict[str, Any]
DEFAULT = 'default'
MOUNT_PATH = '/var/run/secrets/kubernetes.io/serviceaccount'
VOLUME_PREFIX = 'kube-api-access-'
TOKEN_LIFETIME_S = 3_607
"""An hour and an odd rest, by which auditors tell tokens mounted by default (upstream's figure)."""
MIRROR = 'kubernetes.io/config.mirror'


class ServiceAccount(Plugin):
    name = 'ServiceAccount'
    operations: frozenset[Operation] = frozenset({'CREATE'})
    about = frozenset({('', 'pods')})

    def __init__(self, cache: Cache, env: Env) -> None:
        self._cache = cache
        self._env = env

    async def mutate(self, a: Attributes) -> None:
        if not a.is_for('', 'pods') or a.obj is None or _mirror(a.obj):
            return
        spec = a.obj.setdefault('spec', {})
        name = spec.get('serviceAccountName') or spec.get('serviceAccount') or DEFAULT
        spec['serviceAccountName'] = spec['serviceAccount'] = name
        account = await self._find(a.namespace, name)
        if account is None and name != DEFAULT:
            why = f'error looking up service account {a.namespace}/{name}: serviceaccount "{name}" not found'
            raise Forbidden.on(PODS, a.name, why)
        if _wants_token(spec, account or {}):
            self._mount(spec)
        if account is not None and not spec.get('imagePullSecrets') and account.get('imagePullSecrets'):
            spec['imagePullSecrets'] = [dict(s) for s in account['imagePullSecrets']]

    async def validate(self, a: Attributes) -> None:
        if not a.is_for('', 'pods') or a.obj is None:
            return
        if _mirror(a.obj):
            self._check_mirror(a)
            return
        if not a.obj['spec'].get('serviceAccountName'):
            raise Forbidden.on(PODS, a.name, 'no service account specified for pod')

    def _check_mirror(self, a: Attributes) -> None:
        """A mirror pod's containers run without the API, so it may name nothing of it."""
        spec = (a.obj or {}).get('spec') or {}
        if spec.get('serviceAccountName'):
            raise Forbidden.on(PODS, a.name, 'a mirror pod may not reference service accounts')
        if any('secret' in v for v in spec.get('volumes') or ()):
            raise Forbidden.on(PODS, a.name, 'a mirror pod may not reference secrets')
        projected = [s for v in spec.get('volumes') or () for s in (v.get('projected') or {}).get('sources') or ()]
        if any('serviceAccountToken' in s for s in projected):
            raise Forbidden.on(PODS, a.name, 'a mirror pod may not use ServiceAccountToken volume projections')

    async def _find(self, namespace: str, name: str) -> Obj | None:
        key = f'/registry/serviceaccounts/{namespace}/{name}'
        entry = self._cache.peek(key)
        if entry is None:
            await self._cache.fresh()
            entry = self._cache.peek(key)
        return entry.obj if entry is not None else None

    def _mount(self, spec: Obj) -> None:
        containers = [*(spec.get('initContainers') or ()), *(spec.get('containers') or ())]
        bare = [c for c in containers if all(m.get('mountPath') != MOUNT_PATH for m in c.get('volumeMounts') or ())]
        if not bare:
            return
        volumes = spec.setdefault('volumes', [])
        volume = next((v for v in volumes if v.get('name', '').startswith(VOLUME_PREFIX)), None)
        if volume is None:
            volume = _token_volume(generated_name(VOLUME_PREFIX, self._env.rng))
            volumes.append(volume)
        mount = {'name': volume['name'], 'mountPath': MOUNT_PATH, 'readOnly': True}
        for container in bare:
            container.setdefault('volumeMounts', []).append(dict(mount))


def _mirror(pod: Obj) -> bool:
    return MIRROR in (pod['metadata'].get('annotations') or {})


def _wants_token(spec: Obj, account: Obj) -> bool:
    for source in (spec, account):
        if source.get('automountServiceAccountToken') is not None:
            return bool(source['automountServiceAccountToken'])
    return True


def _token_volume(name: str) -> Obj:
    sources: list[Obj] = [
        {'serviceAccountToken': {'expirationSeconds': TOKEN_LIFETIME_S, 'path': 'token'}},
        {'configMap': {'name': 'kube-root-ca.crt', 'items': [{'key': 'ca.crt', 'path': 'ca.crt'}]}},
        {
            'downwardAPI': {
                'items': [{'path': 'namespace', 'fieldRef': {'apiVersion': 'v1', 'fieldPath': 'metadata.namespace'}}]
            }
        },
    ]
    return {'name': name, 'projected': {'defaultMode': 0o644, 'sources': sources}}
