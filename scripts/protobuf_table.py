"""Derive `kapi/schemas/protobuf.json.gz` from the protobuf descriptors inside an installed kubectl.

Run `python -m scripts.protobuf_table /path/to/kubectl` (1.32 or 1.33) after `scripts.schemas`. Field numbers are in no
JSON schema, but a Go binary carries its gzip'd FileDescriptorProtos. Format of the result: see
`kapi/schemas/protobuf.py`.
"""

from __future__ import annotations

import argparse
import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

TARGET = Path('kapi/schemas/protobuf.json.gz')
SCHEMAS = Path('kapi/schemas/builtin.json.gz')
GZIP_MAGIC = re.compile(rb'\x1f\x8b\x08\x00')
SCALARS = {1: 'd', 2: 'f', 3: 'v', 4: 'v', 5: 'v', 8: 'b', 9: 's', 12: 'y', 13: 'v', 17: 'v', 18: 'v'}
MESSAGE = 11
REPEATED = 3
SPECIAL = {
    'k8s.io.apimachinery.pkg.apis.meta.v1.Time': 'T',
    'k8s.io.apimachinery.pkg.apis.meta.v1.MicroTime': 'M',
    'k8s.io.apimachinery.pkg.api.resource.Quantity': 'Q',
    'k8s.io.apimachinery.pkg.util.intstr.IntOrString': 'I',
    'k8s.io.apimachinery.pkg.runtime.RawExtension': 'R',
    'k8s.io.apimachinery.pkg.apis.meta.v1.FieldsV1': 'R',
    'k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSON': 'R',
    'k8s.io.api.authentication.v1.ExtraValue': 'L', 'k8s.io.api.authorization.v1.ExtraValue': 'L',
    'k8s.io.api.certificates.v1.ExtraValue': 'L', 'k8s.io.apimachinery.pkg.apis.meta.v1.Verbs': 'L',
}  # fmt: skip
POINTERS = frozenset((
    'replicas', 'minReplicas', 'revisionHistoryLimit', 'progressDeadlineSeconds', 'parallelism', 'completions',
    'backoffLimit', 'ttlSecondsAfterFinished', 'successfulJobsHistoryLimit', 'failedJobsHistoryLimit',
    'averageUtilization', 'stabilizationWindowSeconds', 'defaultMode', 'mode', 'partition', 'priority', 'port',
    'leaseDurationSeconds', 'leaseTransitions', 'timeoutSeconds', 'minDomains', 'backoffLimitPerIndex',
    'maxFailedIndexes', 'terminationGracePeriodSeconds', 'activeDeadlineSeconds', 'runAsUser', 'runAsGroup',
    'fsGroup', 'tolerationSeconds', 'gracePeriodSeconds', 'deletionGracePeriodSeconds', 'expirationSeconds',
    'startingDeadlineSeconds', 'automountServiceAccountToken', 'enableServiceLinks', 'shareProcessNamespace',
    'setHostnameAsFQDN', 'hostUsers', 'privileged', 'runAsNonRoot', 'readOnlyRootFilesystem',
    'allowPrivilegeEscalation', 'optional', 'controller', 'blockOwnerDeletion', 'immutable',
    'allocateLoadBalancerNodePorts', 'suspend', 'manualSelector', 'allowVolumeExpansion', 'ready', 'serving',
    'terminating', 'started', 'attachRequired', 'podInfoOnMount', 'storageCapacity', 'fsGroupPolicy',
    'requiresRepublish', 'seLinuxMount', 'orphanDependents', 'storageClassName', 'service', 'name', 'type',
    'exitCode', 'dropped', 'selectPolicy', 'nominalConcurrencyShares', 'lendablePercent', 'borrowingLimitPercent',
    'count', 'endPort', 'ordinal',
))  # fmt: skip
"""Names of scalar fields that are pointers in Go somewhere: an explicit zero of these is kept."""
NOT_POINTERS = {
    'name': ('EndpointPort',),
    'type': ('HostPathVolumeSource',),
    'service': ('GRPCAction',),
    'ready': ('EndpointConditions',),
    'port': ('EndpointPort', 'ServiceReference'),
    'count': ('VolumeNodeResources',),
    'priority': ('PodSpec',),
}
"""Of those, names so common that they count only in the messages listed."""


def fields_of(data: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, value) of one message; nested messages stay bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while at < len(data):
        tag = varint()
        match tag & 7:
            case 0:
                yield tag >> 3, varint()
            case 2:
                length = varint()
                yield tag >> 3, data[at : at + length]
                at += length
            case 1:
                at += 8
            case 5:
                at += 4
            case other:
                raise ValueError(f'wire type {other}')


def descriptors(binary: bytes) -> Iterator[bytes]:
    for found in GZIP_MAGIC.finditer(binary):
        try:
            data = zlib.decompressobj(31).decompress(binary[found.start() : found.start() + 400_000])
        except zlib.error:
            continue
        if data[:1] == b'\n' and data[2:9] == b'k8s.io/':
            yield data


def messages(data: bytes) -> Iterator[tuple[str, list[Any]]]:
    """(full name, fields) of every message in one FileDescriptorProto."""
    fields = list(fields_of(data))
    package = next((v.decode() for n, v in fields if n == 2), '')
    for number, value in fields:
        if number == 4:
            yield from message(package, value)


def message(prefix: str, data: bytes) -> Iterator[tuple[str, list[Any]]]:
    parts = list(fields_of(data))
    name = f'{prefix}.{next(v.decode() for n, v in parts if n == 1)}'
    yield name, [field(v) for n, v in parts if n == 2]
    for number, value in parts:
        if number == 3:
            yield from message(name, value)


def field(data: bytes) -> dict[str, Any]:
    found = dict(fields_of(data))
    return {
        'name': found[1].decode(),
        'number': found[3],
        'repeated': found.get(4) == REPEATED,
        'type': found[5],
        'of': found.get(6, b'').decode().lstrip('.'),
    }


def definition_name(message_name: str) -> str:
    """`k8s.io.api.core.v1.Pod` → `io.k8s.api.core.v1.Pod`."""
    return 'io.k8s.' + message_name.removeprefix('k8s.io.').replace('_', '-')


def json_name(name: str, known: dict[str, Any]) -> str | None:
    """How JSON calls a field; None when it is inlined there."""
    if name in known:
        return name
    snake = re.sub('([A-Z])', lambda m: '-' + m.group(1).lower(), name)
    for candidate in (f'${name}', f'x-kubernetes{snake.removeprefix("x")}', name + '_'):
        if candidate in known:
            return candidate
    return next((k for k in known if k.lower() == name.lower()), None)


def entry(
    of: dict[str, Any], all_messages: dict[str, list[Any]], owner: str, known: dict[str, Any], required: list[str]
) -> list[Any]:
    """[JSON name or '' when inlined, shape, flags]: `r` repeated, `m` map, `k` keep a zero."""
    kind = SCALARS.get(of['type'])
    flags = 'r' if of['repeated'] else ''
    if of['type'] == MESSAGE:
        kind = SPECIAL.get(of['of'], '@' + of['of'])
        target = all_messages.get(of['of'], [])
        if of['repeated'] and of['of'].endswith('Entry') and [f['name'] for f in target] == ['key', 'value']:
            value = target[1]
            inner = SCALARS.get(value['type']) or SPECIAL.get(value['of'], '@' + value['of'])
            kind, flags = inner, 'm'
    if kind is None:
        raise ValueError(f'{owner}.{of["name"]}: protobuf type {of["type"]} is not handled')
    name = json_name(of['name'], known) if known else of['name']
    short = owner.rpartition('.')[2]
    pointer = of['name'] in POINTERS and (of['name'] not in NOT_POINTERS or short in NOT_POINTERS[of['name']])
    if kind in {'s', 'b', 'v', 'd', 'f'} and not flags and (pointer or of['name'] in required):
        flags += 'k'
    return [name or '', kind, flags]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('kubectl', type=Path)
    parser.add_argument('--target', type=Path, default=TARGET)
    options = parser.parse_args()
    schemas = orjson.loads(gzip.decompress(SCHEMAS.read_bytes()))
    found = dict(pair for data in descriptors(options.kubectl.read_bytes()) for pair in messages(data))
    roots = set(schemas['kinds'].values())
    by_definition = {definition_name(name): name for name in found}
    kinds = {gvk: by_definition[d] for gvk, d in schemas['kinds'].items() if d in by_definition}
    table: dict[str, dict[str, list[Any]]] = {}
    todo = [by_definition[d] for d in roots if d in by_definition]
    while todo:
        name = todo.pop()
        if name in table:
            continue
        raw = schemas['definitions'].get(definition_name(name), {})
        table[name] = {str(f['number']): entry(f, found, name, raw.get('f', {}), raw.get('r', [])) for f in found[name]}
        todo += [kind[1:] for _, kind, _ in table[name].values() if kind.startswith('@')]
    data = {'kinds': kinds, 'messages': table}
    packed = gzip.compress(orjson.dumps(data, option=orjson.OPT_SORT_KEYS), 9, mtime=0)
    options.target.write_bytes(packed)
    print(f'{options.target}: {len(kinds)} kinds, {len(table)} messages, {len(packed)} bytes')
    for gvk in sorted(set(schemas['kinds']) - set(kinds)):
        print(f'no descriptor: {gvk}')
    inlined = sorted(
        f'{m.rpartition(".")[2]}.{n}:{e[1].rpartition(".")[2]}'
        for m, fs in table.items()
        for n, e in fs.items()
        if not e[0]
    )
    print('inlined:', ' '.join(inlined))


if __name__ == '__main__':
    main()
