"""DefaultTolerationSeconds: a pod stays for five minutes on a node that is lost, unless it says otherwise."""

from __future__ import annotations

from kapi.admission.chain import Attributes, Operation, Plugin

SECONDS = 300
KEYS = ('node.kubernetes.io/not-ready', 'node.kubernetes.io/unreachable')


class DefaultTolerationSeconds(Plugin):
    name = 'DefaultTolerationSeconds'
    operations: frozenset[Operation] = frozenset({'CREATE'})
    about = frozenset({('', 'pods')})

    async def mutate(self, a: Attributes) -> None:
        if not a.is_for('', 'pods') or a.obj is None:
            return
        tolerations = a.obj.setdefault('spec', {}).setdefault('tolerations', [])
        for key in KEYS:
            covered = any(
                t.get('key') in {None, '', key} and t.get('effect') in {None, '', 'NoExecute'} for t in tolerations
            )
            if not covered:
                tolerations.append(
                    {'key': key, 'operator': 'Exists', 'effect': 'NoExecute', 'tolerationSeconds': SECONDS}
                )
