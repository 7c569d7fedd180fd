"""ConfigMap: named pieces of configuration, text or bytes."""

from __future__ import annotations

from collections.abc import Iterator

from kapi.kinds.base import PlainStrategy
from kapi.kinds.printing import AGE, count_of
from kapi.kinds.rules import complaints, forbidden, invalid, too_long
from kapi.registry.kind import Col, Kind, Obj
from kapi.registry.strategy import Invalid
from kcore.meta import gvk, names

MAX_BYTES = 1024 * 1024
_FROZEN = 'field is immutable when `immutable` is set'


class ConfigMapStrategy(PlainStrategy):
    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        data, binary = new.get('data') or {}, new.get('binaryData') or {}
        size = 0
        for field, values in (('data', data), ('binaryData', binary)):
            for key, value in values.items():
                yield from complaints(f'{field}[{key}]', key, names.config_key(key))
                size += len(value.encode()) if field == 'data' else len(value) * 3 // 4
                if field == 'data' and key in binary:
                    yield invalid(f'data[{key}]', key, 'duplicate of key present in binaryData')
        if size > MAX_BYTES:
            yield too_long('', MAX_BYTES)
        if old is not None and old.get('immutable'):
            yield from frozen(new, old, ('data', 'binaryData'))


def frozen(new: Obj, old: Obj, fields: tuple[str, ...]) -> Iterator[Invalid]:
    """Nothing of an immutable ConfigMap or Secret changes, and it stays immutable."""
    if not new.get('immutable'):
        yield forbidden('immutable', _FROZEN)
    for field in fields:
        if (new.get(field) or {}) != (old.get(field) or {}):
            yield forbidden(field, _FROZEN)


KIND = Kind(
    resource=gvk.CONFIGMAPS,
    strategy=ConfigMapStrategy(),
    short=('cm',),
    columns=(Col('Data', count_of('data', 'binaryData'), 'string', description='Number of entries.'), AGE),
)
