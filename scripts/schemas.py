"""Derive `kapi/schemas/builtin.json.gz` from the JSON schemas in the `kubernetes-validate` package.

Run `python -m scripts.schemas` after raising the served version; the result is committed. Kept is the structure alone:
field names, types, required fields and merge rules of every kind that is served, and of what those kinds refer
to. Format: see `kapi/schemas/builtin.py`.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
from pathlib import Path
from typing import Any

import orjson

VERSION = '1.33'
TARGET = Path('kapi/schemas/builtin.json.gz')
SOURCE = 'kubernetes-json-schema/v{version}.0-local/_definitions.json'
SERVED = {
    '': ('v1',), 'apps': ('v1',), 'batch': ('v1',), 'autoscaling': ('v1', 'v2'), 'policy': ('v1',),
    'networking.k8s.io': ('v1',), 'discovery.k8s.io': ('v1',), 'coordination.k8s.io': ('v1',),
    'events.k8s.io': ('v1',), 'scheduling.k8s.io': ('v1',), 'storage.k8s.io': ('v1',),
    'rbac.authorization.k8s.io': ('v1',), 'authentication.k8s.io': ('v1',), 'authorization.k8s.io': ('v1',),
    'certificates.k8s.io': ('v1',), 'apiextensions.k8s.io': ('v1',), 'admissionregistration.k8s.io': ('v1',),
    'apiregistration.k8s.io': ('v1',), 'flowcontrol.apiserver.k8s.io': ('v1',), 'node.k8s.io': ('v1',),
}  # fmt: skip
METRICS = 'io.k8s.metrics.pkg.apis.metrics.v1beta1'
ADMISSION = 'io.k8s.api.admissionregistration.v1'
NAMED = {'k': ['name'], 'l': 'map', 'm': 'name', 'p': 'merge'}
META = {'apiVersion': 's', 'kind': 's', 'metadata': '@io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta'}
MORE = {
    f'{METRICS}.ContainerMetrics': {'f': {'name': 's', 'usage': {'o': 'q'}}, 'r': ['name', 'usage']},
    f'{METRICS}.NodeMetrics': {
        'f': {**META, 'timestamp': 't', 'usage': {'o': 'q'}, 'window': 's'}, 'r': ['timestamp', 'usage', 'window'],
    },
    f'{METRICS}.PodMetrics': {
        'f': {**META, 'containers': {'a': f'@{METRICS}.ContainerMetrics'}, 'timestamp': 't', 'window': 's'},
        'r': ['containers', 'timestamp', 'window'],
    },
    f'{ADMISSION}.MutatingAdmissionPolicy': {'f': {**META, 'spec': f'@{ADMISSION}.MutatingAdmissionPolicySpec'}},
    f'{ADMISSION}.MutatingAdmissionPolicySpec': {'f': {
        'failurePolicy': 's', 'matchConditions': NAMED | {'a': f'@{ADMISSION}.MatchCondition'},
        'matchConstraints': f'@{ADMISSION}.MatchResources', 'mutations': {'a': f'@{ADMISSION}.Mutation'},
        'paramKind': f'@{ADMISSION}.ParamKind', 'reinvocationPolicy': 's',
        'variables': NAMED | {'a': f'@{ADMISSION}.Variable'},
    }},
    f'{ADMISSION}.Mutation': {'f': {
        'applyConfiguration': f'@{ADMISSION}.ApplyConfiguration', 'jsonPatch': f'@{ADMISSION}.JSONPatch',
        'patchType': 's',
    }, 'r': ['patchType']},
    f'{ADMISSION}.ApplyConfiguration': {'f': {'expression': 's'}},
    f'{ADMISSION}.JSONPatch': {'f': {'expression': 's'}},
    f'{ADMISSION}.MutatingAdmissionPolicyBinding': {
        'f': {**META, 'spec': f'@{ADMISSION}.MutatingAdmissionPolicyBindingSpec'},
    },
    f'{ADMISSION}.MutatingAdmissionPolicyBindingSpec': {'f': {
        'matchResources': f'@{ADMISSION}.MatchResources', 'paramRef': f'@{ADMISSION}.ParamRef', 'policyName': 's',
    }},
}  # fmt: skip
"""Definitions of APIs that upstream serves from another repository (k8s.io/metrics), or that are younger (1.36)."""
MORE_KINDS = {
    **{f'metrics.k8s.io/v1beta1/{kind}': f'{METRICS}.{kind}' for kind in ('NodeMetrics', 'PodMetrics')},
    **{
        f'admissionregistration.k8s.io/v1/{kind}': f'{ADMISSION}.{kind}'
        for kind in ('MutatingAdmissionPolicy', 'MutatingAdmissionPolicyBinding')
    },
    'authentication.k8s.io/v1beta1/SelfSubjectReview': 'io.k8s.api.authentication.v1.SelfSubjectReview',
}
"""Kinds that upstream's data for this version does not name."""
SCALARS = {
    'io.k8s.apimachinery.pkg.api.resource.Quantity': 'q',
    'io.k8s.apimachinery.pkg.util.intstr.IntOrString': 'is',
    'io.k8s.apimachinery.pkg.apis.meta.v1.Time': 't',
    'io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime': 'mt',
}
FORMATS = {('integer', 'int32'): 'i', ('integer', 'int64'): 'l', ('string', 'byte'): 'y', ('string', 'date-time'): 't'}
TYPES = {'string': 's', 'boolean': 'b', 'number': 'n', 'integer': 'l'}
REF = '#/$defs/'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--version', default=VERSION)
    parser.add_argument('--target', type=Path, default=TARGET)
    options = parser.parse_args()
    package = importlib.util.find_spec('kubernetes_validate')  # only its data is wanted, so it is not imported
    if package is None or package.origin is None:
        parser.error('the package kubernetes-validate is needed: pip install -e .[schemas]')
    source = Path(package.origin).parent / SOURCE.format(version=options.version)
    definitions = orjson.loads(source.read_bytes())['$defs']
    kinds = served_kinds(definitions)
    compact = {name: definition(definitions, name) for name in sorted(closure(definitions, set(kinds.values())))}
    data = {'version': options.version, 'kinds': {**kinds, **MORE_KINDS}, 'definitions': {**compact, **MORE}}
    packed = gzip.compress(orjson.dumps(data, option=orjson.OPT_SORT_KEYS), 9, mtime=0)
    options.target.write_bytes(packed)
    print(f'{options.target}: {len(kinds)} kinds, {len(compact)} definitions, {len(packed)} bytes')


def served_kinds(definitions: dict[str, Any]) -> dict[str, str]:
    """`group/version/Kind` → definition. Lists are left out: each is its item's kind with `List` added."""
    found: dict[str, str] = {}
    for name, schema in definitions.items():
        for gvk in schema.get('x-kubernetes-group-version-kind') or ():
            group, version, kind = gvk['group'], gvk['version'], gvk['kind']
            alias = kind in {'DeleteOptions', 'WatchEvent', 'Status', 'APIGroup'} and group != ''
            if version in SERVED.get(group, ()) and not kind.endswith('List') and not alias:
                found[f'{group}/{version}/{kind}'] = name
    return dict(sorted(found.items()))


def closure(definitions: dict[str, Any], roots: set[str]) -> set[str]:
    todo, done = list(roots), set()
    while todo:
        name = todo.pop()
        if name not in done:
            done.add(name)
            todo += references(definitions[name])
    return {name for name in done if name not in SCALARS and isinstance(node(definitions, {'$ref': REF + name}), str)
            and node(definitions, {'$ref': REF + name}).startswith('@')}  # fmt: skip


def references(schema: Any) -> list[str]:
    if isinstance(schema, list):
        return [name for item in schema for name in references(item)]
    if not isinstance(schema, dict):
        return []
    found = [schema['$ref'].removeprefix(REF)] if isinstance(schema.get('$ref'), str) else []
    return found + [name for value in schema.values() for name in references(value)]


def definition(definitions: dict[str, Any], name: str) -> dict[str, Any]:
    schema = definitions[name]
    fields = {key: node(definitions, value) for key, value in schema['properties'].items()}
    found: dict[str, Any] = {'f': fields}
    if schema.get('required'):
        found['r'] = sorted(schema['required'])
    if schema.get('x-kubernetes-map-type') == 'atomic':
        found['x'] = 1
    return found


def node(definitions: dict[str, Any], schema: dict[str, Any]) -> Any:
    """One field: a letter for a scalar, `@definition`, or an object with the merge rules."""
    merge: dict[str, Any] = {}
    if 'x-kubernetes-list-type' in schema and schema['x-kubernetes-list-type'] != 'atomic':
        merge['l'] = schema['x-kubernetes-list-type']
    if 'x-kubernetes-list-map-keys' in schema:
        merge['k'] = schema['x-kubernetes-list-map-keys']
    if 'x-kubernetes-patch-merge-key' in schema:
        merge['m'] = schema['x-kubernetes-patch-merge-key']
    if 'x-kubernetes-patch-strategy' in schema:
        merge['p'] = schema['x-kubernetes-patch-strategy']
    if schema.get('x-kubernetes-map-type') == 'atomic':
        merge['x'] = 1
    shape = _shape(definitions, schema)
    if not merge:
        return shape
    return {**(shape if isinstance(shape, dict) else {'t': shape}), **merge}


def _shape(definitions: dict[str, Any], schema: dict[str, Any]) -> Any:
    if '$ref' in schema:
        name = schema['$ref'].removeprefix(REF)
        target = definitions[name]
        if name in SCALARS:
            return SCALARS[name]
        return f'@{name}' if 'properties' in target else _shape(definitions, target)
    kind = schema.get('type')
    if isinstance(kind, list):
        kind = kind[0]
    if kind == 'array':
        return {'a': node(definitions, schema['items'])}
    if kind == 'object' and isinstance(schema.get('additionalProperties'), dict):
        return {'o': node(definitions, schema['additionalProperties'])}
    if kind in TYPES:
        return FORMATS.get((kind, schema.get('format')), TYPES[kind])
    return '*'


if __name__ == '__main__':
    main()
