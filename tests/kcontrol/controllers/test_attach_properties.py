"""Attaching volumes to nodes: rules that hold however pods come and go and nodes are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from kcontrol.controller import Ctx
from kcontrol.controllers.attachdetach import plan as attaching
from kcontrol.controllers.attachdetach.reconcile import attach, nodes_of_attachment
from kcore.meta.objects import name_of

NODES = ('n1', 'n2', 'n3')
# The volumes of a cluster and the modes of each; the claim that is bound to v is called v.
MODES = {'one': ['ReadWriteOnce'], 'pod': ['ReadWriteOncePod'], 'many': ['ReadWriteMany', 'ReadWriteOnce']}
VOLUMES = {
    name: {
        'metadata': {'name': name},
        'spec': {
            'accessModes': modes,
            'csi': {'driver': 'example.com/d', 'volumeHandle': name},
            'claimRef': {'namespace': 'default', 'name': name},
        },
    }
    for name, modes in MODES.items()
}
CLAIMS = {f'default/{name}': {'spec': {'volumeName': name}} for name in VOLUMES}
FOREIGN = {
    'metadata': {'name': 'by-hand'},
    'spec': {'attacher': 'a', 'nodeName': 'n1', 'source': {'persistentVolumeName': 'many'}},
}

PODS = st.tuples(st.sampled_from(NODES), st.sets(st.sampled_from([*VOLUMES]), min_size=1), st.booleans())
CHANGES = PODS | st.integers(0, 3)
"""A pod that comes, or the number of one that ends."""
STEPS = st.lists(st.tuples(CHANGES, st.lists(st.sampled_from(NODES), max_size=3), st.booleans()), max_size=8)
"""A change, the nodes that are looked at after it, and whether the attacher detaches then what it shall."""


def pod(node: str, uses: set[str], finished: bool) -> dict:
    volumes = [{'name': name, 'persistentVolumeClaim': {'claimName': name}} for name in sorted(uses)]
    spec = {'nodeName': node, 'volumes': volumes}
    return {'metadata': {'name': 'p', 'namespace': 'default'}, 'spec': spec,
            'status': {'phase': 'Succeeded' if finished else 'Running'}}  # fmt: skip


class Cluster:
    """Pods and attachments, and an attacher that takes its time to detach."""

    def __init__(self) -> None:
        self.pods: list[dict] = []
        self.attachments: dict[str, dict] = {'by-hand': FOREIGN}

    def step(self, node: str) -> attaching.Step:
        goal = attaching.wanted([p for p in self.pods if p['spec']['nodeName'] == node], CLAIMS.get, VOLUMES.get, {})
        return attaching.plan(node, goal, [*self.attachments.values()], VOLUMES.get)

    def look(self, node: str) -> None:
        step = self.step(node)
        for one in step.detach:
            assert name_of(one) != 'by-hand', 'somebody else made it'
            assert not self.used(node, attaching.volume_of(one))
            meta = {**one['metadata'], 'deletionTimestamp': '2026-01-01T00:00:00Z'}
            self.attachments[name_of(one)] = {**one, 'metadata': meta}
        self.attachments |= {name_of(one): one for one in step.attach}
        again = self.step(node)
        assert (again.attach, again.detach, again.wait) == ((), (), step.wait), 'nothing changed, nothing is written'

    def used(self, node: str, volume: str) -> bool:
        return any(
            p['spec']['nodeName'] == node and p['status']['phase'] == 'Running'
            and any(v['name'] == volume for v in p['spec']['volumes'])
            for p in self.pods
        )  # fmt: skip

    def detached(self) -> None:
        self.attachments = {n: a for n, a in self.attachments.items() if 'deletionTimestamp' not in a['metadata']}

    def places(self, volume: str) -> list[str]:
        """The nodes that have it, or had it and may still write."""
        mine = [a for a in self.attachments.values() if attaching.volume_of(a) == volume and a is not FOREIGN]
        return sorted(a['spec']['nodeName'] for a in mine)

    def change(self, given_: tuple | int) -> None:
        if isinstance(given_, int):
            del self.pods[given_ : given_ + 1]
        else:
            self.pods.append(pod(*given_))


def lived(steps: Sequence[tuple[tuple | int, list[str], bool]]) -> Cluster:
    cluster = Cluster()
    for change, looks, detached in steps:
        cluster.change(change)
        for node in looks:
            cluster.look(node)
            assert len(cluster.places('one')) <= 1
            assert len(cluster.places('pod')) <= 1
        if detached:
            cluster.detached()
    return cluster


@given(STEPS)
def test_a_volume_for_one_node_is_never_on_two_and_none_is_taken_from_a_pod_that_uses_it(steps):
    lived(steps)


@given(STEPS)
def test_in_the_end_each_volume_is_where_its_pods_are(steps):
    cluster = lived(steps)
    for node in NODES * 2:  # the second round attaches what the first set free
        cluster.look(node)
        cluster.detached()
    for volume, modes in MODES.items():
        users = [node for node in NODES if cluster.used(node, volume)]
        places = cluster.places(volume)
        if len(users) < 2 or 'ReadWriteMany' in modes:
            assert places == users
        else:
            assert len(places) == 1
            assert places[0] in users


async def test_a_volume_that_one_node_was_given_waits_for_the_cache_before_another_gets_it(env):
    class Server:
        async def create(self, _resource, obj: dict) -> dict:
            return {**obj, 'metadata': {**obj['metadata'], 'uid': name_of(obj), 'resourceVersion': '7'}}

    cache = SimpleNamespace(store={}, seen_revision=6)
    c = Ctx(Server(), env, SimpleNamespace(get=lambda *_, **__: cache), None, None, None)
    first, second, shared = (
        attaching.wanted([pod(node, {name}, False)], CLAIMS.get, VOLUMES.get, {}).popitem()[1]
        for node, name in (('n1', 'one'), ('n2', 'one'), ('n1', 'many'))
    )
    assert await attach(c, first, VOLUMES['one'])
    assert not await attach(c, second, VOLUMES['one'])
    assert await attach(c, shared, VOLUMES['many'])
    assert await attach(c, shared, VOLUMES['many'])
    cache.seen_revision = 7
    assert await attach(c, second, VOLUMES['one'])


def test_the_nodes_that_wait_for_a_volume_are_looked_at_when_it_is_set_free():
    pods = [pod('n2', {'one'}, False), pod('n3', {'many'}, False), pod('n3', {'one'}, True)]
    c = SimpleNamespace(get=lambda _, name: VOLUMES.get(name), in_namespace=lambda *_: pods)
    held = attaching.wanted([pod('n1', {'one'}, False)], CLAIMS.get, VOLUMES.get, {}).popitem()[1]
    assert {*nodes_of_attachment(c, held, held)} == {'n1'}
    assert {*nodes_of_attachment(c, held, None)} == {'n1', 'n2'}
