"""Reads of the API on behalf of pods: ConfigMaps, Secrets, service account tokens, Services."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from kclient.api import Client
from kclient.errors import NotFound
from kclient.informer import Informer, by_namespace
from kcore.meta.gvk import CONFIGMAPS, SERVICEACCOUNTS, SERVICES, Resource
from kcore.meta.objects import key_of
from knode.pods.model import Obj
from knode.watches import ObjectWatches, Ref, Tell

MASTER_SERVICE = 'default/kubernetes'
ROOT_CA = 'kube-root-ca.crt'
"""The ConfigMap that every pod with a token mounts and that the control plane alone writes."""


class ApiObjects:
    def __init__(self, client: Client) -> None:
        self._client = client
        self.service_informer = Informer(client, SERVICES, indexers={'namespace': by_namespace})
        self.watches = ObjectWatches(client)
        self._roots: dict[Ref, Obj] = {}
        """Each namespace's ROOT_CA, of those that are watched."""

    async def read(self, resource: Resource, name: str, namespace: str) -> Obj | None:
        """From the API: a pod that starts has to see what was written before it was made.

        Nobody writes ROOT_CA and then makes a pod that needs it: it is read once for each version that a watch tells.
        """
        if name == ROOT_CA and resource == CONFIGMAPS:
            return await self._root_ca((resource, namespace, name))
        return await self._get(resource, name, namespace)

    async def _get(self, resource: Resource, name: str, namespace: str) -> Obj | None:
        try:
            return await self._client.get(resource, name, namespace)
        except NotFound:
            return None

    async def _root_ca(self, ref: Ref) -> Obj | None:
        kept = self._roots.get(ref)
        if kept is not None and kept['metadata']['resourceVersion'] == self.watches.version(ref):
            return kept
        found = await self._get(CONFIGMAPS, ROOT_CA, ref[1])
        self._roots = {r: o for r, o in self._roots.items() if r in self.watches.watched and r != ref}
        if found is not None:
            self._roots[ref] = found
        return found

    def follow(self, refs: frozenset[Ref], tell: Tell) -> None:
        self.watches.follow(refs, tell)

    def tells(self, refs: Iterable[Ref]) -> bool:
        return all(self.watches.tells(ref) for ref in refs)

    async def token(self, pod: Obj, audience: str, expires_s: int) -> str:
        meta = pod['metadata']
        request = {
            'apiVersion': 'authentication.k8s.io/v1',
            'kind': 'TokenRequest',
            'metadata': {'namespace': meta['namespace']},
            'spec': {
                'audiences': [audience] if audience else [],
                'expirationSeconds': expires_s,
                'boundObjectRef': {'apiVersion': 'v1', 'kind': 'Pod', 'name': meta['name'], 'uid': meta['uid']},
            },
        }
        account = pod['spec'].get('serviceAccountName') or 'default'
        answer = await self._client.create(SERVICEACCOUNTS, request, subresource='token', name=account)
        return str(answer['status']['token'])

    def services(self, namespace: str) -> Iterable[Obj]:
        """Of a namespace, and the API's own: at the address where this node reaches it, which no proxy has to serve."""
        store = self.service_informer.store
        found: dict[str, Obj] = {key_of(s): s for s in store.by_index('namespace', namespace)}
        master = store.get(MASTER_SERVICE)
        if master is not None:
            found[MASTER_SERVICE] = reachable(master, self._client.server)
        return found.values()


def reachable(service: Obj, server: str) -> Obj:
    """The Service as if `server` (a URL) were its address."""
    url = urlsplit(server)
    port = {'name': 'https', 'protocol': 'TCP', 'port': url.port or 443}
    return {**service, 'spec': {**service['spec'], 'clusterIP': url.hostname, 'ports': [port]}}
