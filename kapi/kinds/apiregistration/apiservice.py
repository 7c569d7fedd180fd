"""APIService: a group and version that another server answers for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from kapi.kinds.base import PlainStrategy, put_defaults
from kapi.kinds.printing import AGE
from kapi.kinds.rules import invalid, required
from kapi.registry.kind import Col, Kind, Obj, Status
from kapi.registry.strategy import Invalid
from kcore.meta import names
from kcore.meta.gvk import Resource
from kcore.meta.objects import get_condition, get_path


class APIServiceStrategy(PlainStrategy):
    name_check = staticmethod(names.path_segment)

    def default(self, obj: Obj) -> None:
        service = get_path(obj, 'spec.service')
        if isinstance(service, dict):
            put_defaults(service, port=443)

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec, name = new.get('spec') or {}, new['metadata'].get('name') or ''
        wanted = f'{spec.get("version") or ""}.{spec.get("group") or ""}'
        if name != wanted:
            yield invalid('metadata.name', name, f'must be `spec.version+"."+spec.group`: "{wanted}"')
        if spec.get('service') is not None:
            yield from _service_rules(spec)
        else:
            for field, what in (('caBundle', 'a caBundle'), ('insecureSkipTLSVerify', 'insecureSkipTLSVerify')):
                if spec.get(field):
                    yield invalid(f'spec.{field}', spec[field], f'local APIServices may not have {what}')
        if not spec.get('version'):
            yield required('spec.version')
        for field in ('groupPriorityMinimum', 'versionPriority'):
            if (spec.get(field) or 0) <= 0:
                yield invalid(f'spec.{field}', spec.get(field) or 0, 'must be positive')


def _service_rules(spec: Obj) -> Iterator[Invalid]:
    for field in ('namespace', 'name'):
        if not spec['service'].get(field):
            yield required(f'spec.service.{field}')
    if not 1 <= int(spec['service'].get('port') or 443) <= 65535:
        yield invalid('spec.service.port', spec['service']['port'], 'must be between 1 and 65535, inclusive')
    if spec.get('insecureSkipTLSVerify') and spec.get('caBundle'):
        yield invalid('spec.insecureSkipTLSVerify', True, 'may not be true if caBundle is present')


def _service(obj: Obj, _now: datetime) -> str:
    found = get_path(obj, 'spec.service')
    return f'{found.get("namespace", "")}/{found.get("name", "")}' if found else 'Local'


def _available(obj: Obj, _now: datetime) -> str:
    found = get_condition(obj, 'Available')
    if found is None:
        return 'Unknown'
    status = str(found.get('status'))
    return f'{status} ({found["reason"]})' if status != 'True' and found.get('reason') else status


KIND = Kind(
    resource=Resource('apiregistration.k8s.io', 'v1', 'apiservices', 'APIService', namespaced=False),
    strategy=APIServiceStrategy(),
    categories=('api-extensions',),
    subresources=(Status(),),
    columns=(
        Col('Service', _service, description='Who answers.'),
        Col('Available', _available, description='Whether it does.'),
        AGE,
    ),
)
