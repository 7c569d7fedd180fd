"""NetworkPolicy: who may talk to whom."""

from __future__ import annotations

from collections.abc import Iterator

from kapi.kinds.base import BuiltinStrategy, put_defaults, spec_of
from kapi.kinds.core.container_rules import PROTOCOLS, port_ref
from kapi.kinds.printing import AGE, selector_at
from kapi.kinds.rules import label_selector, one_of, required
from kapi.registry.kind import Col, Kind, Obj
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource


class NetworkPolicyStrategy(BuiltinStrategy):
    def default(self, obj: Obj) -> None:
        spec = spec_of(obj)
        put_defaults(spec, podSelector={})
        if not spec.get('policyTypes'):
            spec['policyTypes'] = ['Ingress', 'Egress'] if spec.get('egress') else ['Ingress']
        for field in ('ingress', 'egress'):
            for rule in spec.get(field) or ():
                for port in rule.get('ports') or ():
                    put_defaults(port, protocol='TCP')

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec = new.get('spec') or {}
        yield from label_selector('spec.podSelector', spec.get('podSelector'))
        for i, kind in enumerate(spec.get('policyTypes') or ()):
            yield from one_of(f'spec.policyTypes[{i}]', kind, ('Egress', 'Ingress'))
        for field, peers in (('ingress', 'from'), ('egress', 'to')):
            for i, rule in enumerate(spec.get(field) or ()):
                yield from _rule(f'spec.{field}[{i}]', rule, peers)


def _rule(at: str, rule: Obj, peers: str) -> Iterator[Invalid]:
    for i, port in enumerate(rule.get('ports') or ()):
        yield from one_of(f'{at}.ports[{i}].protocol', port.get('protocol'), PROTOCOLS)
        if port.get('port') is not None:
            yield from port_ref(f'{at}.ports[{i}].port', port['port'])
    for i, peer in enumerate(rule.get(peers) or ()):
        where = f'{at}.{peers}[{i}]'
        if not any(peer.get(k) is not None for k in ('podSelector', 'namespaceSelector', 'ipBlock')):
            yield required(where, 'must specify a peer')
        for field in ('podSelector', 'namespaceSelector'):
            yield from label_selector(f'{where}.{field}', peer.get(field))


KIND = Kind(
    resource=Resource('networking.k8s.io', 'v1', 'networkpolicies', 'NetworkPolicy'),
    strategy=NetworkPolicyStrategy(),
    short=('netpol',),
    columns=(Col('Pod-Selector', selector_at('spec.podSelector'), description='Pods that it is about.'), AGE),
)
