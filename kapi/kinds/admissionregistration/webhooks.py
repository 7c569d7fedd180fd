"""What both kinds of webhook configuration share. Source: pkg/apis/admissionregistration/."""

from __future__ import annotations

from collections.abc import Iterator

from kapi.kinds.base import BuiltinStrategy, put_defaults
from kapi.kinds.printing import AGE, count_of
from kapi.kinds.rules import between, complaints, duplicate, invalid, label_selector, one_of, required
from kapi.registry.kind import Col, Obj
from kapi.registry.strategy import Invalid
from kcore.meta import names

GROUP = 'admissionregistration.k8s.io'
TIMEOUT_S = 10
MAX_TIMEOUT_S = 30
OPERATIONS = ('*', 'CONNECT', 'CREATE', 'DELETE', 'UPDATE')
COLUMNS = (Col('Webhooks', count_of('webhooks'), 'integer', description='Number of webhooks.'), AGE)


class WebhooksStrategy(BuiltinStrategy):
    def __init__(self, *, mutating: bool = False) -> None:
        self._mutating = mutating

    def default(self, obj: Obj) -> None:
        for hook in obj.get('webhooks') or ():
            put_defaults(hook, failurePolicy='Fail', matchPolicy='Equivalent', timeoutSeconds=TIMEOUT_S)
            put_defaults(hook, namespaceSelector={}, objectSelector={})
            if self._mutating:
                put_defaults(hook, reinvocationPolicy='Never')
            service = (hook.get('clientConfig') or {}).get('service')
            if isinstance(service, dict):
                put_defaults(service, port=443)
            for rule in hook.get('rules') or ():
                put_defaults(rule, scope='*')

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        seen: set[str] = set()
        for i, hook in enumerate(new.get('webhooks') or ()):
            at, name = f'webhooks[{i}]', hook.get('name') or ''
            if not name:
                yield required(f'{at}.name')
            else:
                yield from complaints(f'{at}.name', name, names.dns_subdomain(name))
                if len(name.split('.')) < 3:
                    yield invalid(
                        f'{at}.name', name, 'should be a domain with at least three segments separated by dots'
                    )
            if name in seen:
                yield duplicate(f'{at}.name', name)
            seen.add(name)
            yield from _hook(at, hook)


def _hook(at: str, hook: Obj) -> Iterator[Invalid]:
    if not hook.get('admissionReviewVersions'):
        yield required(f'{at}.admissionReviewVersions', 'must specify one of v1, v1beta1')
    elif not {'v1', 'v1beta1'} & set(hook['admissionReviewVersions']):
        detail = 'must include at least one of v1, v1beta1'
        yield invalid(f'{at}.admissionReviewVersions', hook['admissionReviewVersions'], detail)
    yield from one_of(f'{at}.sideEffects', hook.get('sideEffects'), ('None', 'NoneOnDryRun'))
    yield from one_of(f'{at}.failurePolicy', hook.get('failurePolicy'), ('Fail', 'Ignore'))
    yield from one_of(f'{at}.matchPolicy', hook.get('matchPolicy'), ('Equivalent', 'Exact'))
    yield from between(f'{at}.timeoutSeconds', hook.get('timeoutSeconds'), 1, MAX_TIMEOUT_S)
    for field in ('namespaceSelector', 'objectSelector'):
        yield from label_selector(f'{at}.{field}', hook.get(field))
    client = hook.get('clientConfig') or {}
    if bool(client.get('url')) == bool(client.get('service')):
        yield required(f'{at}.clientConfig', 'exactly one of url or service is required')
    for i, rule in enumerate(hook.get('rules') or ()):
        yield from match_rule(f'{at}.rules[{i}]', rule)


def match_rule(at: str, rule: Obj) -> Iterator[Invalid]:
    for field in ('operations', 'apiGroups', 'apiVersions', 'resources'):
        if not rule.get(field):
            yield required(f'{at}.{field}')
    for i, operation in enumerate(rule.get('operations') or ()):
        yield from one_of(f'{at}.operations[{i}]', operation, OPERATIONS)
    yield from one_of(f'{at}.scope', rule.get('scope'), ('*', 'Cluster', 'Namespaced'), need=False)
