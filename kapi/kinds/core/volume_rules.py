"""422 rules of a pod's volumes. Source: pkg/apis/core/validation/validation.go (ValidateVolumes)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from kapi.kinds.core.container_rules import field_ref
from kapi.kinds.rules import between, complaints, duplicate, forbidden, invalid, one_of, quantity, required
from kapi.registry.strategy import Invalid
from kcore.meta import names
from kcore.meta.objects import Obj

MAX_FILE_MODE = 0o777
HOST_PATH_TYPES = (
    '', 'BlockDevice', 'CharDevice', 'Directory', 'DirectoryOrCreate', 'File', 'FileOrCreate', 'Socket'
)  # fmt: skip
FILE_FIELD_PATHS = ('metadata.name', 'metadata.namespace', 'metadata.labels', 'metadata.annotations', 'metadata.uid')
MIN_TOKEN_EXPIRATION_S = 600


def volumes(at: str, items: Sequence[Obj]) -> Iterator[Invalid]:
    seen: set[str] = set()
    for i, v in enumerate(items):
        where, name = f'{at}[{i}]', v.get('name') or ''
        if not name:
            yield required(f'{where}.name')
        else:
            yield from complaints(f'{where}.name', name, names.dns_label(name))
        if name in seen:
            yield duplicate(f'{where}.name', name)
        seen.add(name)
        sources = [key for key, value in v.items() if key != 'name' and value is not None]
        if not sources:
            yield required(where, 'must specify a volume type')
        for extra in sources[1:]:
            yield forbidden(f'{where}.{extra}', 'may not specify more than 1 volume type')
        for source in sources[:1]:
            check = _CHECKS.get(source)
            if check is not None:
                yield from check(f'{where}.{source}', v[source])


def _secret(at: str, source: Obj) -> Iterator[Invalid]:
    if not source.get('secretName'):
        yield required(f'{at}.secretName')
    yield from _mode_and_items(at, source)


def _config_map(at: str, source: Obj) -> Iterator[Invalid]:
    if not source.get('name'):
        yield required(f'{at}.name')
    yield from _mode_and_items(at, source)


def _mode_and_items(at: str, source: Obj) -> Iterator[Invalid]:
    yield from mode(f'{at}.defaultMode', source.get('defaultMode'))
    for i, item in enumerate(source.get('items') or ()):
        if not item.get('key'):
            yield required(f'{at}.items[{i}].key')
        yield from local_path(f'{at}.items[{i}].path', item.get('path'))
        yield from mode(f'{at}.items[{i}].mode', item.get('mode'))


def mode(at: str, value: int | None) -> Iterator[Invalid]:
    if value is not None and not 0 <= value <= MAX_FILE_MODE:
        yield invalid(at, value, 'must be a number between 0 and 0777 (octal), both inclusive')


def local_path(at: str, path: str | None) -> Iterator[Invalid]:
    if not path:
        yield required(at)
        return
    if path.startswith('/'):
        yield invalid(at, path, 'must be a relative path')
    if '..' in path.split('/'):
        yield invalid(at, path, "must not contain '..'")
    if path.startswith('..') and not path.startswith('../'):
        yield invalid(at, path, "must not start with '..'")


def _downward(at: str, source: Obj) -> Iterator[Invalid]:
    yield from mode(f'{at}.defaultMode', source.get('defaultMode'))
    for i, item in enumerate(source.get('items') or ()):
        where = f'{at}.items[{i}]'
        yield from local_path(f'{where}.path', item.get('path'))
        yield from mode(f'{where}.mode', item.get('mode'))
        if item.get('fieldRef') is not None:
            yield from field_ref(f'{where}.fieldRef', item['fieldRef'], FILE_FIELD_PATHS)
        elif item.get('resourceFieldRef') is None:
            yield required(where, 'one of fieldRef and resourceFieldRef is required')


def _projected(at: str, source: Obj) -> Iterator[Invalid]:
    yield from mode(f'{at}.defaultMode', source.get('defaultMode'))
    for i, part in enumerate(source.get('sources') or ()):
        where = f'{at}.sources[{i}]'
        given = [key for key, value in part.items() if value is not None]
        for extra in given[1:]:
            yield forbidden(f'{where}.{extra}', 'may not specify more than 1 volume type')
        for kind in given[:1]:
            value = part[kind]
            if kind in {'secret', 'configMap'}:
                yield from _config_map(f'{where}.{kind}', value)
            elif kind == 'downwardAPI':
                yield from _downward(f'{where}.{kind}', value)
            elif kind == 'serviceAccountToken':
                yield from local_path(f'{where}.{kind}.path', value.get('path'))
                yield from between(
                    f'{where}.{kind}.expirationSeconds', value.get('expirationSeconds'), MIN_TOKEN_EXPIRATION_S, 2**32
                )


def _host_path(at: str, source: Obj) -> Iterator[Invalid]:
    path = source.get('path') or ''
    if not path:
        yield required(f'{at}.path')
    elif '..' in path.split('/'):
        yield invalid(f'{at}.path', path, "must not contain '..'")
    yield from one_of(f'{at}.type', source.get('type'), HOST_PATH_TYPES, need=False)


def _empty_dir(at: str, source: Obj) -> Iterator[Invalid]:
    if source.get('sizeLimit') is not None:
        yield from quantity(f'{at}.sizeLimit', source['sizeLimit'])


def _claim(at: str, source: Obj) -> Iterator[Invalid]:
    if not source.get('claimName'):
        yield required(f'{at}.claimName')


def _nfs(at: str, source: Obj) -> Iterator[Invalid]:
    for field in ('server', 'path'):
        if not source.get(field):
            yield required(f'{at}.{field}')
    if source.get('path') and not source['path'].startswith('/'):
        yield invalid(f'{at}.path', source['path'], 'must be an absolute path')


def _csi(at: str, source: Obj) -> Iterator[Invalid]:
    if not source.get('driver'):
        yield required(f'{at}.driver')


_CHECKS: dict[str, Any] = {
    'secret': _secret, 'configMap': _config_map, 'downwardAPI': _downward, 'projected': _projected, 'csi': _csi,
    'hostPath': _host_path, 'emptyDir': _empty_dir, 'persistentVolumeClaim': _claim, 'nfs': _nfs,
}  # fmt: skip
