"""From a manifest file to the pod that this node runs: pure.

The pod belongs to its file and its node: its name ends in the node's, its uid is a hash of both and of what the file
says, so that a changed manifest is another pod. Source: pkg/kubelet/config/common.go, pkg/kubelet/types/pod_update.go.
Differs: a `metadata.uid` in the manifest goes into the hash instead of standing for it, since the pod's directory is
named by the uid.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
import yaml

from kcore.meta.times import format_time

Obj = Mapping[str, Any]

HASH = 'kubernetes.io/config.hash'
SEEN = 'kubernetes.io/config.seen'
SOURCE = 'kubernetes.io/config.source'
MIRROR = 'kubernetes.io/config.mirror'
TOLERATION = {'operator': 'Exists', 'effect': 'NoExecute'}
MANIFEST_BYTES_MAX = 1 << 20
"""As much as the API would take of one pod, generously."""
_NAME = re.compile(r'[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?')
_LOADER = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)


class ManifestError(ValueError):
    """A file that describes no pod; the text is for the log."""


def is_static(pod: Obj) -> bool:
    """Whether the pod comes from a source other than the API."""
    return _annotations(pod).get(SOURCE, 'api') != 'api' and MIRROR not in _annotations(pod)


def is_mirror(pod: Obj) -> bool:
    return MIRROR in _annotations(pod)


def _annotations(pod: Obj) -> Mapping[str, str]:
    return pod['metadata'].get('annotations') or {}


def static_pod(data: bytes, path: str, node: str, now: datetime) -> dict[str, Any]:
    """The pod of one file. Raises ManifestError."""
    given = _decode(data)
    meta, spec = given.get('metadata') or {}, given.get('spec') or {}
    name = f'{meta.get("name") or ""}-{node.lower()}'
    if given.get('kind') != 'Pod' or given.get('apiVersion') != 'v1':
        raise ManifestError(f'not a Pod of v1 but {given.get("kind")!r} of {given.get("apiVersion")!r}')
    if not meta.get('name') or not _NAME.fullmatch(name):
        raise ManifestError(f'metadata.name: {meta.get("name")!r} is no name of a pod')
    _check(spec)
    digest = hashlib.sha256(orjson.dumps([node, path, given], option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]
    annotations = (meta.get('annotations') or {}) | {HASH: digest, SEEN: format_time(now), SOURCE: 'file'}
    kept = {k: meta[k] for k in ('labels',) if meta.get(k)}
    return {
        'apiVersion': 'v1',
        'kind': 'Pod',
        'metadata': {
            **kept,
            'name': name,
            'namespace': meta.get('namespace') or 'default',
            'uid': digest,
            'annotations': annotations,
            'creationTimestamp': format_time(now),
        },
        'spec': {**spec, 'nodeName': node, 'tolerations': [*(spec.get('tolerations') or ()), TOLERATION]},
        'status': {'phase': 'Pending'},
    }


def _decode(data: bytes) -> dict[str, Any]:
    if len(data) > MANIFEST_BYTES_MAX:
        raise ManifestError(f'larger than {MANIFEST_BYTES_MAX} bytes')
    try:
        given = yaml.load(data, Loader=_LOADER)  # noqa: S506 — a safe loader; JSON is YAML
        orjson.dumps(given)
    except (yaml.YAMLError, TypeError) as e:
        raise ManifestError(f'neither YAML nor JSON: {e}') from e
    if not isinstance(given, dict):
        raise ManifestError('no object')
    return given


def _check(spec: Obj) -> None:
    """What the node's own code relies on; nobody has defaulted or validated the manifest."""
    containers = spec.get('containers')
    if not isinstance(containers, list) or not containers:
        raise ManifestError('spec.containers: there has to be one')
    names = set()
    for c in [*containers, *(spec.get('initContainers') or ())]:
        if not isinstance(c, dict) or not c.get('image') or not _NAME.fullmatch(str(c.get('name') or '')):
            raise ManifestError('spec.containers: each needs a name and an image')
        if c['name'] in names:
            raise ManifestError(f'spec.containers: {c["name"]!r} twice')
        names.add(c['name'])
    if spec.get('ephemeralContainers'):
        raise ManifestError('spec.ephemeralContainers: not in a static pod')


def mirror_of(pod: Obj, node: Obj) -> dict[str, Any]:
    """The object that stands for a static pod in the API, owned by its node."""
    meta = pod['metadata']
    owner = {'apiVersion': 'v1', 'kind': 'Node', 'controller': True}
    kept = {k: meta[k] for k in ('name', 'namespace', 'labels') if k in meta}
    return {
        'apiVersion': 'v1',
        'kind': 'Pod',
        'metadata': {
            **kept,
            'annotations': {**meta['annotations'], MIRROR: meta['annotations'][HASH]},
            'ownerReferences': [owner | {'name': node['metadata']['name'], 'uid': node['metadata']['uid']}],
        },
        'spec': pod['spec'],
    }
