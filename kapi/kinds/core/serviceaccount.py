"""ServiceAccount: an identity for processes in pods."""

from __future__ import annotations

from kapi.kinds.base import PlainStrategy
from kapi.kinds.printing import AGE, count_of
from kapi.registry.kind import Col, Connect, Kind
from kcore.meta import gvk


class ServiceAccountStrategy(PlainStrategy):
    returns_deleted_object = True


KIND = Kind(
    resource=gvk.SERVICEACCOUNTS,
    strategy=ServiceAccountStrategy(),
    short=('sa',),
    subresources=(Connect('token', 'TokenRequest', ('create',), 'authentication.k8s.io', 'v1'),),
    columns=(Col('Secrets', count_of('secrets'), 'string', description='Number of secrets it may use.'), AGE),
)
