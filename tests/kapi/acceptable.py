"""Objects that the server takes, found by asking it: fill in everything, then mend what each refusal complains of."""

from __future__ import annotations

import base64
import copy
import random
import re
from collections.abc import Awaitable, Callable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kcore.meta.schema import Node

Obj = dict[str, Any]
Path = tuple[str | int, ...]
Send = Callable[[Obj], Awaitable[Any]]
"""Sends an object; the reply has `.status` and `.json`."""

TRIES_MAX = 400
GIVE_UP_AFTER = 5
"""Complaints about one value before it goes."""
LEAVE_OUT = 0.35
"""Share of the fields that all turns but the first leave out, so that each member of a union has its turn."""

_TEXTS = (
    'web', 'x.example.com', '10.0.0.1', '/a/b', 'a.example/b', 'http', 'Always', '*', 'a=b', '0 0 * * *', 'Equal', '1h',
    'https://a.example/b', '10.0.0.0/24', '1.0', 'true', 'A_B', '/api/*', 'get', 'system:web', 'user', 'sha256', '+i',
    'ReadWriteOnce', 'In', 'Exists', 'TCP', 'Ingress', 'Kill', 'name', 'text/x', 'x.example.com/y', 'client auth',
)  # fmt: skip
_NUMBERS = (1, 2, 8080, 30, 300, 1000, 30080, 10, 50)
_VALUES: dict[str, tuple[Any, ...]] = {
    'string': _TEXTS, 'int32': _NUMBERS, 'int64': _NUMBERS, 'number': (1.5, 1), 'boolean': (True, False),
    'quantity': ('100m', '1', '1Gi'), 'int-or-string': (80, '25%', 'web'), 'time': ('2026-01-02T03:04:05Z',),
    'micro-time': ('2026-01-02T03:04:05.000006Z',), 'bytes': ('YQ==',), 'any': ({'a': [1, 'x', {'b': 'c'}]},),
}  # fmt: skip
_SHAPED: dict[str, Any] = {
    'metadata': {'labels': {'a': 'web'}, 'annotations': {'a': 'web'}}, 'selector': {'matchLabels': {'a': 'web'}},
}  # fmt: skip
"""Where a rule joins several fields: what a selector selects must be what a template bears."""


def _csr() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return base64.b64encode(made.public_bytes(serialization.Encoding.PEM))


_KNOWN: dict[str, Any] = {
    'serviceAccountName': 'default', 'serviceAccount': 'default', 'priorityClassName': 'system-cluster-critical',
    'limits': {'cpu': '1'}, 'requests': {'cpu': '1'}, 'resource': 'limits.cpu', 'fieldPath': 'metadata.name',
    'runtimeClassName': 'runtime', 'namespace': 'default', 'admissionReviewVersions': ['v1'],
    'signerName': 'example.com/x', 'request': _csr(), 'priority': 2000000000,
    'preemptionPolicy': 'PreemptLowerPriority',
    'nodeName': None, 'ownerReferences': None, 'clusterIP': None, 'clusterIPs': None, 'matchExpressions': None,
    'healthCheckNodePort': None,
}  # fmt: skip
"""What must name something that is there or agree with another field; None is better left out."""
_TYPE_OF: dict[type, str] = {str: 'string', dict: 'map', int: 'int32', list: 'array', bytes: 'bytes'}
_UNIONS = {
    'Volume': {'name'}, 'EnvVarSource': set(), 'LifecycleHandler': set(), 'VolumeProjection': set(),
    'WebhookClientConfig': {'caBundle'}, 'IngressBackend': set(), 'ServiceBackendPort': set(),
    'EnvFromSource': {'prefix'}, 'DownwardAPIVolumeFile': {'path', 'mode'},
    'PersistentVolumeSpec': {
        'accessModes', 'capacity', 'claimRef', 'mountOptions', 'nodeAffinity', 'persistentVolumeReclaimPolicy',
        'storageClassName', 'volumeAttributesClassName', 'volumeMode',
    },
    'Probe': {
        'failureThreshold', 'initialDelaySeconds', 'periodSeconds', 'successThreshold', 'terminationGracePeriodSeconds',
        'timeoutSeconds',
    },
}  # fmt: skip
"""Definitions of which one member may be set → their fields that are no members."""
_SUPPORTED = re.compile(r'supported values: (.*)$')
_STEP = re.compile(r'([^.\[\]]+)|\[([^\]]*)\]')


def filled(node: Node, rng: random.Random, leave_out: float, inside: tuple[str, ...] = ()) -> Any:
    """A value with the fields of `node` set, but for a share of those that are not required; of a union one member."""
    if node.type == 'object':
        within = (*inside, node.name) if node.name else inside
        kept = {k: c for k, c in node.fields.items() if not _again(c, within) and _KNOWN.get(k, '') is not None}
        members = _members(node)
        if members:
            chosen = rng.choice(members)
            kept = {k: c for k, c in kept.items() if k == chosen or k not in members}
        return {
            key: _field(key, child, rng, leave_out, within)
            for key, child in kept.items()
            if key in members or key in node.required or key in _SHAPED or rng.random() >= leave_out
        }
    if node.type == 'map':
        return {'a': filled(node.items, rng, leave_out, inside)} if node.items else {'a': 'b'}
    if node.type == 'array':
        return _listed(node.items, rng, leave_out, inside) if node.items else ['a']
    return copy.deepcopy(_VALUES[node.type][0])


def _field(key: str, node: Node, rng: random.Random, leave_out: float, inside: tuple[str, ...]) -> Any:
    if key in _SHAPED and node.name:
        return copy.deepcopy(_SHAPED[key])
    known = _KNOWN.get(key)
    if known is None or _TYPE_OF[type(known)] not in {node.type, ''}:
        return filled(node, rng, leave_out, inside)
    return known.decode() if isinstance(known, bytes) else copy.deepcopy(known)


def _listed(node: Node, rng: random.Random, leave_out: float, inside: tuple[str, ...]) -> list[Any]:
    """One item; of a union one for each member."""
    members = _members(node)
    if not members:
        return [filled(node, rng, leave_out, inside)]
    items = []
    for index, member in enumerate(members):
        item = filled(node, rng, leave_out, inside)
        item = {k: v for k, v in item.items() if k not in members}
        item[member] = _field(member, node.fields[member], rng, leave_out, (*inside, node.name))
        items.append(item | ({'name': f'a{index}' if index else 'web'} if 'name' in node.fields else {}))
    return items


def _members(node: Node) -> list[str]:
    beside = _UNIONS.get(node.name.rpartition('.')[2])
    return [] if beside is None else [k for k in node.fields if k not in beside]


def _again(node: Node, inside: tuple[str, ...]) -> bool:
    while node.items is not None:
        node = node.items
    return node.type == 'object' and node.name in inside


async def accepted(send: Send, obj: Obj, root: Node, rng: random.Random) -> tuple[Obj, Any]:
    """(the object as it was taken, the reply). Fails the test when nothing helps."""
    complaints: dict[Path, int] = {}
    reply = await send(obj)
    for _ in range(TRIES_MAX):
        if reply.status < 300:
            return obj, reply
        assert reply.status in {422, 403}, (reply.status, reply.json)
        causes = reply.json['details'].get('causes') or [{'field': '', 'message': reply.json['message']}]
        for cause in causes:
            _mend(obj, root, cause, complaints, rng)
        reply = await send(obj)
    raise AssertionError(f'never taken: {reply.json}')


def _mend(obj: Obj, root: Node, cause: Obj, complaints: dict[Path, int], rng: random.Random) -> None:
    path = _path_of(obj, cause['field'])
    assert path, cause
    if path == ('metadata', 'name'):
        return
    count = complaints[path] = complaints.get(path, 0) + 1
    node, supported = _node_at(root, path), _SUPPORTED.search(cause['message'])
    if node is None or count > GIVE_UP_AFTER + len(_TEXTS) * (node.type == 'string'):
        _drop(obj, path)
    elif node.type == 'object' and not _value_at(obj, path) and count > 1:
        for below in [p for p in complaints if p[: len(path)] == path and p != path]:
            del complaints[below]
        _put(obj, path, filled(node, rng, 0))
    elif supported and (values := re.findall(r'"([^"]+)"', supported[1])):
        _put(obj, path, [rng.choice(values)] if node.type == 'array' else rng.choice(values))
    elif cause.get('reason') == 'FieldValueRequired':
        _put(obj, path, _field(str(path[-1]), node, rng, 0, ()))
    elif cause.get('reason') == 'FieldValueForbidden' or node.type in {'object', 'map', 'array', 'boolean', 'any'}:
        _drop(obj, path)
    else:
        values = _VALUES[node.type]
        _put(obj, path, values[count % len(values)])


def _path_of(obj: Obj, text: str) -> Path:
    """The longest part of `spec.a[0].b` that is there or could be."""
    path: list[str | int] = []
    for name, index in _STEP.findall(text):
        path.append(name or (int(index) if index.isdecimal() else index))
    return tuple(path)


def _node_at(root: Node, path: Path) -> Node | None:
    node: Node | None = root
    for step in path:
        node = None if node is None else node.items if isinstance(step, int) else node.child(step)
    return node


def _value_at(obj: Any, path: Path) -> Any:
    holder = _parent(obj, path)
    return holder.get(path[-1]) if isinstance(holder, dict) else None


def _parent(obj: Any, path: Path) -> Any:
    """What holds the last step, made on the way where only maps are missing; None where there is nothing."""
    for at, step in enumerate(path[:-1]):
        if isinstance(obj, list):
            obj = obj[step] if isinstance(step, int) and step < len(obj) else None
        elif isinstance(obj, dict) and isinstance(step, str):
            obj = obj.setdefault(step, {}) if isinstance(path[at + 1], str) else obj.get(step)
        else:
            return None
    return obj


def _put(obj: Obj, path: Path, value: Any) -> None:
    holder = _parent(obj, path)
    if (isinstance(holder, list) and isinstance(path[-1], int) and path[-1] < len(holder)) or (
        isinstance(holder, dict) and isinstance(path[-1], str)
    ):
        holder[path[-1]] = value


def _drop(obj: Obj, path: Path) -> None:
    holder = _parent(obj, path)
    if (isinstance(holder, list) and isinstance(path[-1], int) and path[-1] < len(holder)) or (
        isinstance(holder, dict) and path[-1] in holder
    ):
        del holder[path[-1]]
    elif len(path) > 1:
        _drop(obj, path[:-1])
