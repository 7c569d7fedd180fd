"""Exchange the cluster's keys and certificates while it runs: `kctl cluster rotate`.

Every process reads its files anew by itself (`kcore/tls.py`, `kclient/transport.py`, `kapi/authn/keys.py`,
`kapi/storage/encryption.py`), so this
only writes files, in an order in which nobody meets a certificate that nobody believes.
"""

from __future__ import annotations

from collections.abc import Iterator

from kcore.env import Env
from kctl.local.cluster import exclusive
from kctl.local.components import Plan
from kctl.local.layout import Layout
from kctl.verbs.lib.errors import Refused, Unreachable
from kctl.verbs.lib.session import Flags, Session
from kctl.verbs.token import PUBLIC, publish


def rotate(layout: Layout, env: Env, *, authorities: bool, forget_old: bool) -> Iterator[str]:
    """Sentences about what was done."""
    with exclusive(layout, env):
        plan = Plan(layout, env)
        if authorities or not forget_old:
            plan.rotate(authorities=authorities)
            yield 'Every component has a new key and certificate; service account tokens and Secrets have new keys.'
        if authorities:
            yield 'The authorities are new; certificates and kubeconfigs of the old ones are good until `--forget-old`.'
        if forget_old:
            plan.forget_old()
            yield 'Earlier authorities and token keys are believed no more.'
    if authorities or forget_old:
        yield from _tell_nodes(layout)


def _tell_nodes(layout: Layout) -> Iterator[str]:
    """Nodes that joined by a token learn of the authority from the cluster's own description."""
    session = Session(Flags(kubeconfig=str(layout.kubeconfig)))
    try:
        session.http.get(f'{PUBLIC}/cluster-info')
        publish(session)
        yield 'Nodes that joined by a token follow within 10 minutes.'
    except Unreachable:
        yield 'The cluster does not run; after its start, `kctl token create` tells joined nodes of the authority.'
    except Refused as e:
        if e.code != 404:
            raise
    finally:
        session.close()
