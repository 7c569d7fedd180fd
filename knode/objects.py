"""Reads of the API on behalf of pods: ConfigMaps, Secrets, service account tokens, Services."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from kclient.api import Client
from kclient.errors import NotFound
from kclient.informer import Informer, by_namespace
from kcore.meta.gvk import SERVICEACCOUNTS, SERVICES, Resource
from kcore.meta.objects import key_of
from knode.pods.model import Obj
from knode.watches import ObjectWatches, Ref, Tell

MASTER_SERVICE = 'default/kubernetes'


class ApiObjects:
    def __init__(self, client: Client) -> None:
        self._client = client
        self.service_informer = Informer(client, SERVICES, indexers={'namespace': by_namespace})
        self.watches = ObjectWatches(client)

    async def read(self, resource: Resource, name: str, namespace: str) -> Obj | None:
        """Always from the API: a pod that starts has to see what was written before it was made."""
        try:
            return await self._client.get(resource, name, namespace)
        except NotFound:
            return None

    def follow(self, refs: frozenset[Ref], tell: Tell) -> None:
        self.watches.follow(refs, tell)

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
