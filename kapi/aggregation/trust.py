"""What aggregated servers need to believe us: the ConfigMap kube-system/extension-apiserver-authentication.

It names the CA of client certificates, the CA of our own proxy certificate, and the headers in which we say who
calls. Source: controlplane/controller/clusterauthenticationtrust.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from kapi.authn.user import SYSTEM
from kapi.errors import AlreadyExists, NotFound
from kapi.registry.options import WriteOptions
from kapi.registry.store import Write

if TYPE_CHECKING:
    from kapi.server.service import ApiServer

Obj = dict[str, Any]

NAMESPACE = 'kube-system'
NAME = 'extension-apiserver-authentication'


def trust_of(server: ApiServer) -> dict[str, str]:
    """The ConfigMap's data."""
    config, read = server.config, server.env.disk.read
    client_ca = read(config.client_ca).decode()
    own_ca = config.requestheader_client_ca_file
    # Without a front proxy CA of its own, our proxy certificate is one of the client CA.
    proxy_ca = read(own_ca).decode() if own_ca is not None else client_ca
    return {
        'client-ca-file': client_ca,
        'requestheader-client-ca-file': proxy_ca,
        'requestheader-allowed-names': orjson.dumps(list(config.requestheader_allowed_names)).decode(),
        'requestheader-username-headers': '["X-Remote-User"]',
        'requestheader-group-headers': '["X-Remote-Group"]',
        'requestheader-extra-headers-prefix': '["X-Remote-Extra-"]',
    }


async def publish_trust(server: ApiServer) -> None:
    """Create the ConfigMap or bring it up to date. Raises StorageError."""
    kind = server.catalog.find('', 'v1', 'configmaps')
    assert kind is not None
    data = trust_of(server)
    write = Write(SYSTEM, WriteOptions(field_manager='kube-apiserver'))

    async def change(obj: Obj) -> Obj:
        return {**obj, 'data': {**(obj.get('data') or {}), **data}}

    try:
        await server.registry.update(kind, NAMESPACE, NAME, change, write)
    except NotFound:
        made = {'apiVersion': 'v1', 'kind': 'ConfigMap', 'metadata': {'name': NAME}, 'data': data}
        try:
            await server.registry.create(kind, NAMESPACE, made, write)
        except AlreadyExists:
            return  # another API server was faster
