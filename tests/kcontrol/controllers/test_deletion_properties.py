"""Garbage collection and the end of a namespace: rules that hold in whatever order things are looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kclient.errors import ApiError
from kclient.model import Propagation
from kcontrol.controllers.gc import graph as g
from kcontrol.controllers.namespace import plan as ending
from kcontrol.controllers.namespace import reconcile as namespaces
from kcore.meta.gvk import CONFIGMAPS, DEPLOYMENTS, NODES, PODS, REPLICASETS, SECRETS
from tests.kcontrol.conftest import NOW

# --- the garbage collector

COUNT = 6
GHOST = 'ghost'
"""An owner that never was."""
# Object number → the numbers of its owners, and whether each is blocked by it; COUNT is the ghost.
OWNERS = st.lists(
    st.dictionaries(st.integers(0, COUNT), st.booleans(), max_size=3), min_size=COUNT, max_size=COUNT
)  # fmt: skip


def uid(number: int) -> str:
    return f'u{number}' if number < COUNT else GHOST


class World:
    """A server and the collector's graph of it, which sees every change at once."""

    def __init__(self, owners: Sequence[Mapping[int, bool]], chance: Random) -> None:
        self.graph, self.chance = g.Graph(), chance
        self.queue: set[str] = set()
        for number, held in enumerate(owners):
            refs = tuple({'uid': uid(o), 'blockOwnerDeletion': b} for o, b in held.items())
            self.put(g.Node(REPLICASETS, 'default', uid(number), uid(number), '1', refs))

    @property
    def objects(self) -> dict[str, g.Node]:
        return self.graph.nodes

    def put(self, node: g.Node) -> None:
        """Written; an object that is being deleted goes with its last finalizer."""
        if not node.deleting or node.finalizers:
            self.queue |= self.graph.put(node)
            return
        if self.objects[node.uid].foreground:
            refs = [ref for other in self.objects.values() for ref in other.owners if ref['uid'] == node.uid]
            assert not any(ref['blockOwnerDeletion'] for ref in refs), 'a dependent that blocks is still there'
        self.queue |= self.graph.remove(node.uid)

    def delete(self, node: g.Node, how: Propagation) -> None:
        kept = {'Foreground': {g.FOREGROUND}, 'Orphan': {g.ORPHAN}, 'Background': set[str]()}[how]
        self.put(replace(node, deleting=True, finalizers=frozenset(kept)))

    def state(self, owner: str) -> g.OwnerState:
        held = self.objects.get(owner)
        return 'absent' if held is None else 'waiting' if held.foreground else 'solid'

    def act(self, node: g.Node, action: g.Action) -> None:
        match action:
            case g.Delete(propagation=how):
                assert not any(self.state(ref['uid']) == 'solid' for ref in node.owners), 'an owner lives'
                self.delete(node, how)
            case g.SetOwners(owners=owners):
                self.put(replace(node, owners=owners))
            case g.DropFinalizer(name=name):
                self.put(replace(node, finalizers=node.finalizers - {name}))
            case g.Orphan(dependents=dependents):
                for one in dependents:
                    left = tuple(ref for ref in one.owners if ref['uid'] != node.uid)
                    self.put(replace(self.objects[one.uid], owners=left))
                self.put(replace(node, finalizers=node.finalizers - {g.ORPHAN}))

    def settle(self) -> None:
        for _ in range(40 * COUNT):
            if not self.queue:
                return
            looked = self.chance.choice(sorted(self.queue))
            self.queue.discard(looked)
            node = self.objects.get(looked)
            if node is None:
                continue
            states = {} if node.deleting else {ref['uid']: self.state(ref['uid']) for ref in node.owners}
            for action in g.decide(self.graph, node, states):
                self.act(self.objects[looked], action)
        raise AssertionError('the collector does not come to rest')


def doomed(owners: Sequence[Mapping[int, bool]], first: set[int]) -> set[str]:
    """What is deleted, and what has owners and loses all of them."""
    gone = {*first, COUNT}
    while more := {n for n, held in enumerate(owners) if n not in gone and held and held.keys() <= gone}:
        gone |= more
    return {uid(n) for n in gone}


@given(
    OWNERS, st.dictionaries(st.integers(0, COUNT - 1), st.sampled_from(['Foreground', 'Background'])),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_what_loses_all_its_owners_goes_and_all_else_stays_in_whatever_order(owners, deleted, chance):
    world = World(owners, chance)
    for number, how in deleted.items():
        world.delete(world.objects[uid(number)], how)
    world.settle()
    gone = doomed(owners, {*deleted})
    assert {uid(n) for n in range(COUNT)} - world.objects.keys() == gone - {GHOST}
    for one in world.objects.values():
        refs = {ref['uid'] for ref in one.owners}
        assert not refs & gone, 'owners that are gone are forgotten'
        assert refs == {uid(o) for o in owners[int(one.uid[1:])]} - gone


@given(OWNERS, st.integers(0, COUNT - 1), st.randoms(use_true_random=False))
def test_what_is_orphaned_outlives_its_owner_and_forgets_it(owners, deleted, chance):
    known = [{o: blocks for o, blocks in held.items() if o != COUNT} for held in owners]
    world = World(known, chance)
    world.settle()
    world.delete(world.objects[uid(deleted)], 'Orphan')
    world.settle()
    assert world.objects.keys() == {uid(n) for n in range(COUNT) if n != deleted}
    for number, held in enumerate(known):
        if number != deleted:
            refs = {ref['uid'] for ref in world.objects[uid(number)].owners}
            assert refs == {uid(o) for o in held if o != deleted}


@given(st.integers(1, COUNT), st.sets(st.integers(0, COUNT - 1), min_size=1), st.randoms(use_true_random=False))
def test_a_ring_of_owners_that_block_each_other_goes_when_some_are_deleted_in_foreground(size, deleted, chance):
    world = World([{(n + 1) % size: True} for n in range(size)], chance)
    world.settle()
    assert len(world.objects) == size, 'each has an owner that lives'
    for number in {n % size for n in deleted}:
        world.delete(world.objects[uid(number)], 'Foreground')
    world.settle()
    assert not world.objects


# --- the end of a namespace

KINDS = {r.qualified: r for r in (PODS, CONFIGMAPS, SECRETS, DEPLOYMENTS)}
# Of each kind the objects: for how many looks a finalizer keeps it after its deletion.
CONTENT = st.dictionaries(st.sampled_from([*KINDS]), st.lists(st.integers(0, 2), max_size=3))
# Of each look the kinds whose listing fails, and whether a part of discovery does.
TROUBLE = st.lists(st.tuples(st.sets(st.sampled_from([*KINDS]), max_size=1), st.booleans()), max_size=4)


@dataclass
class Server:
    """What the controller asks of the API of a namespace that ends."""

    content: dict[str, dict[str, int]]
    failing: set[str] = field(default_factory=set)
    finalized: bool = False
    deleted: set[str] = field(default_factory=set)

    async def list(self, resource, _namespace: str) -> SimpleNamespace:
        if resource.qualified in self.failing:
            raise ApiError({'code': 500, 'message': 'no'})
        return SimpleNamespace(items=[self.shown(name) for name in self.content.get(resource.qualified, ())])

    def shown(self, name: str) -> dict:
        going = {'deletionTimestamp': '2026-01-01T00:00:00Z'} if name in self.deleted else {}
        return {'metadata': {'name': name, 'uid': name, 'finalizers': ['example.com/f'], **going}}

    async def delete(self, resource, name: str, _namespace: str, **_) -> None:
        assert resource == PODS or not self.content.get('pods'), 'what pods use stays until they have ended'
        held = self.content[resource.qualified]
        if not held[name]:
            del held[name]
        self.deleted.add(name)

    async def get(self, _resource, _name: str) -> dict:
        return NAMESPACE

    async def update(self, _resource, obj: dict, *, subresource: str) -> None:
        assert (subresource, obj['spec']['finalizers']) == ('finalize', ['example.com/other'])
        assert not any(self.content.values()), 'content remains'
        self.finalized = True

    def pass_time(self) -> None:
        """Others take their finalizers away."""
        for held in self.content.values():
            for name in [*held]:
                held[name] -= name in self.deleted
                if held[name] < 0:
                    del held[name]


NAMESPACE = {
    'metadata': {'name': 'x', 'uid': 'x', 'deletionTimestamp': '2026-01-01T00:00:00Z'},
    'spec': {'finalizers': ['kubernetes', 'example.com/other']},
}


async def looked(server: Server, discovery: bool) -> dict[str, str]:
    """One pass. Returns condition → status as written, {} if nothing was."""
    written: list[dict] = []

    async def found(_client) -> SimpleNamespace:
        return SimpleNamespace(with_verbs=lambda *_: KINDS.values(), failed={} if discovery else {'x/v1': 'down'})

    async def patch_status(_resource, _obj, status: dict, **_) -> None:
        written.append(status)

    c = SimpleNamespace(client=server, get=lambda *_: NAMESPACE, now=lambda: NOW, patch_status=patch_status)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(namespaces, 'discover', found)
        again = await namespaces.reconcile.reconcile(c, 'x')
    assert (again is None) == server.finalized, 'it looks again until all is done'
    return {condition['type']: condition['status'] for status in written for condition in status['conditions']}


@given(CONTENT, TROUBLE)
def test_a_namespace_keeps_its_finalizer_while_content_remains_or_is_not_known(content, trouble):
    server = Server({kind: {f'{kind}-{n}': looks for n, looks in enumerate(held)} for kind, held in content.items()})
    for failing, discovery in trouble:
        if server.finalized:
            return
        server.failing = failing
        conditions = asyncio.run(looked(server, discovery))
        assert not server.finalized or (discovery and not failing), 'not all is known'
        assert (conditions.get('NamespaceDeletionDiscoveryFailure', 'False') == 'True') is not discovery
        assert server.finalized or 'True' in conditions.values(), 'why it waits is said'
        server.pass_time()
    server.failing = set()
    for _ in range(12):
        if not server.finalized:
            asyncio.run(looked(server, True))
            server.pass_time()
    assert server.finalized


@given(st.lists(st.sampled_from([PODS, CONFIGMAPS, SECRETS, DEPLOYMENTS, NODES]), unique=True))
def test_pods_are_deleted_first_and_every_other_kind_of_a_namespace_once(resources):
    first, then = ending.stages(resources)
    assert first == [r for r in resources if r == PODS]
    assert {*then} == {*resources} - {PODS, NODES}
    assert len({*then}) == len(then)


@given(st.lists(st.tuples(
    st.lists(st.lists(st.sampled_from(['a', 'b']), unique=True), max_size=3), st.booleans(), st.booleans()
), max_size=5))  # fmt: skip
def test_a_condition_moves_its_time_only_when_its_status_changes(looks):
    foreign = {'type': 'Foreign', 'status': 'True', 'lastTransitionTime': 'x'}
    held = [foreign]
    for number, (finalizers, failed, lost) in enumerate(looks, 1):
        left = {CONFIGMAPS: [{'metadata': {'finalizers': names}} for names in finalizers]}
        wrong = ending.problems(left, {'secrets': 'no'} if failed else {}, {'x/v1': 'down'} if lost else {})
        now = NOW + timedelta(seconds=number)
        conditions = ending.plan_conditions({'status': {'conditions': held}}, wrong, now)
        status = {c['type']: c['status'] for c in conditions}
        assert status.pop('Foreign') == 'True'
        assert status == {
            'NamespaceDeletionDiscoveryFailure': str(lost), 'NamespaceDeletionGroupVersionParsingFailure': 'False',
            'NamespaceDeletionContentFailure': str(failed), 'NamespaceContentRemaining': str(bool(finalizers)),
            'NamespaceFinalizersRemaining': str(any(finalizers)),
        }  # fmt: skip
        before = {c['type']: c for c in held}
        for one in conditions:
            old = before.get(one['type'])
            moved = old is None or old['lastTransitionTime'] != one['lastTransitionTime']
            assert moved is (old is None or old['status'] != one['status'])
        held = conditions
