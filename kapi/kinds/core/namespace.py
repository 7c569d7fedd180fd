"""Namespace: a scope for names, whose deletion waits until its content is gone."""

from __future__ import annotations

from collections.abc import Iterator

from kapi.kinds.base import PlainStrategy, spec_of
from kapi.kinds.printing import AGE, text
from kapi.kinds.rules import forbidden
from kapi.registry.kind import Col, Connect, Kind, Obj, Status
from kapi.registry.strategy import Invalid
from kcore.meta import gvk, names

FINALIZER = 'kubernetes'
NAME_LABEL = 'kubernetes.io/metadata.name'


class NamespaceStrategy(PlainStrategy):
    """`spec.finalizers` belongs to /finalize, and the name is repeated as a label so that selectors can use it."""

    name_check = staticmethod(names.dns_label)
    returns_deleted_object = True

    def default(self, obj: Obj) -> None:
        name = obj['metadata'].get('name')
        if name:
            obj['metadata'].setdefault('labels', {})[NAME_LABEL] = name

    def prepare(self, new: Obj, old: Obj | None) -> None:
        if old is None:
            finalizers = spec_of(new).setdefault('finalizers', [])
            if FINALIZER not in finalizers:
                finalizers.append(FINALIZER)
            new['status'] = {'phase': 'Active'}
        else:
            spec_of(new)['finalizers'] = list((old.get('spec') or {}).get('finalizers') or [])

    def validate_status(self, new: Obj, old: Obj) -> Iterator[Invalid]:
        phase = (new.get('status') or {}).get('phase')
        deleting = bool(new['metadata'].get('deletionTimestamp'))
        if deleting and phase != 'Terminating':
            yield forbidden('status.phase', "may only be 'Terminating' if `deletionTimestamp` is not empty")
        if not deleting and phase not in {'Active', '', None}:
            yield forbidden('status.phase', "may only be 'Active' if `deletionTimestamp` is empty")


KIND = Kind(
    resource=gvk.NAMESPACES,
    strategy=NamespaceStrategy(),
    short=('ns',),
    verbs=('create', 'delete', 'get', 'list', 'patch', 'update', 'watch'),
    subresources=(Status(), Connect('finalize', 'Namespace', ('update',))),
    columns=(Col('Status', text('status.phase'), description='Active or Terminating.'), AGE),
    selectable={'status.phase': 'status.phase'},
)
