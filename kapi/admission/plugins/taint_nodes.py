"""TaintNodesByCondition: a new node takes no pods before it was seen ready."""

from __future__ import annotations

from kapi.admission.chain import Attributes, Operation, Plugin

NOT_READY = {'key': 'node.kubernetes.io/not-ready', 'effect': 'NoSchedule'}


class TaintNodesByCondition(Plugin):
    name = 'TaintNodesByCondition'
    operations: frozenset[Operation] = frozenset({'CREATE'})
    about = frozenset({('', 'nodes')})

    async def mutate(self, a: Attributes) -> None:
        if not a.is_for('', 'nodes') or a.obj is None:
            return
        taints = a.obj.setdefault('spec', {}).setdefault('taints', None) or []
        a.obj['spec']['taints'] = taints
        if not any((t.get('key'), t.get('effect')) == (NOT_READY['key'], NOT_READY['effect']) for t in taints):
            taints.append(dict(NOT_READY))
