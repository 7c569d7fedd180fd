"""The graph of owners and dependents, and what to do with one object of it. Pure.

Edges are uids. An owner that is only referred to may be real but not yet seen, so "absent" is decided by asking the
server, never by the graph. A namespaced owner counts only within its dependents' namespace; a cluster-scoped dependent
cannot have a namespaced owner.
Source: pkg/controller/garbagecollector/garbagecollector.go, graph_builder.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from kclient.model import Obj, Propagation
from kcore.meta.gvk import Resource

FOREGROUND, ORPHAN = 'foregroundDeletion', 'orphan'

OwnerState = Literal['solid', 'waiting', 'absent']


@dataclass(frozen=True, slots=True)
class Node:
    """What the collector remembers of one object: no more than metadata."""

    resource: Resource
    namespace: str
    name: str
    uid: str
    resource_version: str
    owners: tuple[Obj, ...] = ()
    finalizers: frozenset[str] = frozenset()
    deleting: bool = False

    @property
    def foreground(self) -> bool:
        """Goes away once its blocking dependents are gone."""
        return self.deleting and FOREGROUND in self.finalizers

    @property
    def orphaning(self) -> bool:
        """Goes away once its dependents have let go of it."""
        return self.deleting and ORPHAN in self.finalizers


def node_of(resource: Resource, obj: Obj) -> Node:
    meta = obj['metadata']
    return Node(
        resource, str(meta.get('namespace') or ''), str(meta['name']), str(meta['uid']),
        str(meta.get('resourceVersion') or ''), tuple(meta.get('ownerReferences') or ()),
        frozenset(meta.get('finalizers') or ()), bool(meta.get('deletionTimestamp')),
    )  # fmt: skip


@dataclass(slots=True)
class Graph:
    """All objects that were seen, and who depends on whom."""

    nodes: dict[str, Node] = field(default_factory=dict)
    _dependents: dict[str, dict[str, None]] = field(default_factory=dict)

    def put(self, node: Node) -> set[str]:
        """Returns uids worth looking at because of the change."""
        old = self.nodes.get(node.uid)
        if old is not None:
            self._unlink(old)
        self.nodes[node.uid] = node
        for uid in owner_uids(node):
            self._dependents.setdefault(uid, {})[node.uid] = None
        look: set[str] = set()
        if node.owners or node.orphaning or node.foreground:
            look.add(node.uid)
        if node.foreground and (old is None or not old.foreground):
            look.update(self._dependents.get(node.uid, ()))
        if old is not None and old.owners != node.owners:
            look.update(owner_uids(old))  # an owner that waited for this one may go now
        return look

    def remove(self, uid: str) -> set[str]:
        """The object is gone. Returns its dependents, and owners that may have waited for it."""
        old = self.nodes.pop(uid, None)
        look = set(self._dependents.get(uid, ()))
        if old is not None:
            self._unlink(old)
            look |= {owner for owner in owner_uids(old) if owner in self.nodes and self.nodes[owner].foreground}
        return look

    def dependents(self, uid: str) -> list[Node]:
        return [self.nodes[d] for d in self._dependents.get(uid, ()) if d in self.nodes]

    def blockers(self, uid: str) -> list[Node]:
        """Dependents that a deletion in the foreground waits for."""
        return [d for d in self.dependents(uid) if _blocks(d, uid)]

    def _unlink(self, node: Node) -> None:
        for uid in owner_uids(node):
            held = self._dependents.get(uid)
            if held is not None:
                held.pop(node.uid, None)
                if not held:
                    del self._dependents[uid]


def owner_uids(node: Node) -> Iterable[str]:
    return (str(ref.get('uid')) for ref in node.owners)


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the object itself."""

    propagation: Propagation


@dataclass(frozen=True, slots=True)
class SetOwners:
    """Write these owner references."""

    owners: tuple[Obj, ...]


@dataclass(frozen=True, slots=True)
class DropFinalizer:
    name: str


@dataclass(frozen=True, slots=True)
class Orphan:
    """Cut the references of all dependents, then drop the finalizer."""

    dependents: tuple[Node, ...]


Action = Delete | SetOwners | DropFinalizer | Orphan


def decide(graph: Graph, node: Node, owners: dict[str, OwnerState]) -> list[Action]:
    """What to do with `node` now. owners: the state of each owner's uid, as verified with the server."""
    if node.orphaning:
        return [Orphan(tuple(graph.dependents(node.uid)))]
    if node.foreground:
        return _wait_in_foreground(graph, node)
    if node.deleting or not node.owners:
        return []
    solid = [ref for ref in node.owners if owners[str(ref['uid'])] == 'solid']
    if len(solid) == len(node.owners):
        return []
    if solid:
        return [SetOwners(tuple(solid))]
    if any(owners[str(ref['uid'])] == 'waiting' for ref in node.owners):
        return _go_in_foreground(graph, node)
    return [Delete(_propagation(node))]


def _wait_in_foreground(graph: Graph, node: Node) -> list[Action]:
    """Gone once nothing blocks it. One of those that wait for each other in a ring lets go of its owners."""
    if not graph.blockers(node.uid):
        return [DropFinalizer(FOREGROUND)]
    unblocked = _unblocked(node)
    return [SetOwners(unblocked)] if unblocked != node.owners and _waits_for_itself(graph, node) else []


def _waits_for_itself(graph: Graph, node: Node) -> bool:
    """Whether the way from `node` along those that wait, each for the next, comes back to it."""
    seen, ahead = set[str](), [node]
    while ahead:
        for blocker in graph.blockers(ahead.pop().uid):
            if blocker.uid == node.uid:
                return True
            if blocker.foreground and blocker.uid not in seen:
                seen.add(blocker.uid)
                ahead.append(blocker)
    return False


def _go_in_foreground(graph: Graph, node: Node) -> list[Action]:
    """An owner waits for this one. When dependents of it go in foreground too, a cycle is broken by not blocking."""
    dependents = graph.dependents(node.uid)
    if not dependents:
        return [Delete(_propagation(node))]
    unblocked = _unblocked(node)
    cyclic = any(d.foreground for d in dependents) and unblocked != node.owners
    actions: list[Action] = [SetOwners(unblocked)] if cyclic else []
    return [*actions, Delete('Foreground')]


def _propagation(node: Node) -> Propagation:
    """The policy that was asked of the object itself, by finalizers set in advance."""
    if ORPHAN in node.finalizers:
        return 'Orphan'
    return 'Foreground' if FOREGROUND in node.finalizers else 'Background'


def _unblocked(node: Node) -> tuple[Obj, ...]:
    return tuple({**ref, 'blockOwnerDeletion': False} for ref in node.owners)


def _blocks(dependent: Node, owner: str) -> bool:
    return any(ref.get('uid') == owner and ref.get('blockOwnerDeletion') for ref in dependent.owners)
