"""Is there one order of all operations that explains every answer? A checker after Wing & Gong, and Lowe.

Operations are tried in every order that respects real time (one that ended before another began comes first), against
a model that either accepts an operation and its answer in a state, giving the next state, or does not. Configurations
already seen (which operations are done, in which state) are not tried again. An operation of unknown outcome may come
at any moment after it began, or never. Sources: Wing & Gong 1993; Lowe, *Testing for linearizability*, 2017; porcupine.

The model is that of STORE_FACTS §3.1 item 5a: revision, keys with their versions, leases. Every answer carries the
revision it is true at, which leaves the search little to guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kstore.errors import LeaseNotFound
from tests.sim.kstore.history import NEVER, Operation

CONFIGURATIONS_MAX = 200_000
"""Configurations after which a search is given up as undecided."""

Version = tuple[Any, ...]
"""(value, create revision, mod revision, version, lease)."""


class Undecided(Exception):
    """The search was too large: the history says nothing."""


@dataclass(frozen=True)
class State:
    """The small model: an immutable value, so that configurations can be remembered."""

    revision: int = 1
    keys: tuple[tuple[bytes, Version], ...] = ()
    ended: frozenset[int] = frozenset()
    """Leases that are gone."""

    def get(self, key: bytes) -> Version | None:
        for name, version in self.keys:
            if name == key:
                return version
        return None

    def put(self, key: bytes, value: bytes, lease: int, revision: int) -> State:
        old = self.get(key)
        new = (value, revision, revision, 1, lease) if old is None else (value, old[1], revision, old[3] + 1, lease)
        keys = [(k, v) for k, v in self.keys if k != key]
        keys.append((key, new))
        return replace(self, revision=revision, keys=tuple(sorted(keys)))

    def drop(self, keys: Sequence[bytes], revision: int) -> State:
        return replace(self, revision=revision, keys=tuple((k, v) for k, v in self.keys if k not in keys))


def step(state: State, op: Operation) -> State | None:
    """The state after `op` answered as it did; None when it cannot have, here."""
    known = op.end != NEVER
    if op.kind == 'end':
        return _end(state, op)
    if isinstance(op.result, LeaseNotFound):
        return state if op.arguments[-1] in state.ended else None
    return _STEPS[op.kind](state, op, known)


def _get(state: State, op: Operation, known: bool) -> State | None:
    key, _ = op.arguments
    return state if not known or op.result == (state.revision, state.get(key)) else None


def _put(state: State, op: Operation, known: bool) -> State | None:
    key, value, lease = op.arguments
    if lease in state.ended:
        return None
    after = state.put(key, value, lease, state.revision + 1)
    return _written(op, after, op.result if known else 0)


def _delete(state: State, op: Operation, known: bool) -> State | None:
    (key,) = op.arguments
    there = state.get(key) is not None
    after = state.drop((key,), state.revision + 1) if there else state
    if known and op.result != (after.revision, int(there)):
        return None
    return after


def _cas(state: State, op: Operation, known: bool) -> State | None:
    key, expected, value = op.arguments
    current = state.get(key)
    if (current[2] if current else 0) == expected:
        after = state.put(key, value, 0, state.revision + 1)
        if known and op.result[1:] != (True, None):
            return None
        return _written(op, after, op.result[0] if known else 0)
    return state if not known or op.result == (state.revision, False, current) else None


def _txn(state: State, op: Operation, known: bool) -> State | None:
    compares, writes = op.arguments
    holds = all((((v := state.get(key)) and v[2]) or 0) == mod for key, mod in compares)
    after = state
    if holds:
        revision = state.revision + 1
        for what, key, *rest in writes:
            if what == 'put':
                after = after.put(key, rest[0], 0, revision)
            elif after.get(key) is not None:
                after = after.drop((key,), revision)
    if known and op.result != (after.revision, holds):
        return None
    return _written(op, after, after.revision) if after is not state else after


def _end(state: State, op: Operation) -> State | None:
    lease, revision = op.arguments
    keys = [k for k, v in state.keys if v[4] == lease]
    after = state.drop(keys, state.revision + 1) if keys else state
    return replace(after, ended=after.ended | {lease}) if after.revision == revision else None


def _gone(state: State, op: Operation, known: bool) -> State | None:
    return state if not known or op.arguments[0] in state.ended else None


def _written(op: Operation, after: State, told: int) -> State | None:
    """A write must have happened at the revision that was told, or at which its value was seen."""
    if (told and after.revision != told) or (op.hint and after.revision != op.hint):
        return None
    return after


_STEPS = {'get': _get, 'put': _put, 'delete': _delete, 'cas': _cas, 'txn': _txn, 'gone': _gone}


@dataclass
class Verdict:
    """`order` explains the history; or nothing does, and `stuck` lists what could come next but cannot have."""

    order: list[Operation] | None
    longest: int = 0
    stuck: Sequence[Operation] = ()
    state: State | None = None

    def __str__(self) -> str:
        if self.order is not None:
            return f'linearizable, {len(self.order)} operations'
        return (
            f'no order explains it: after {self.longest} operations in {self.state}, none of these fits: '
            + '; '.join(str(op) for op in self.stuck[:6])
        )


Prune = Callable[[State, State], bool]


def check(operations: Sequence[Operation], initial: State | None = None, may: Prune = lambda a, b: True) -> Verdict:
    """Raises Undecided when the search grows over CONFIGURATIONS_MAX.

    may: whether an operation of unknown outcome, or the end of a lease, can have led from one state to the next, if
    there is other evidence.
    """
    ops = sorted(
        (op for op in operations if not (op.end == NEVER and op.kind in ('get', 'gone')) and op.hint >= 0),
        key=lambda op: op.call,
    )
    return _Search(ops, may).run(initial or State())


class _Search:
    """Depth first, without recursion; operations are numbered by the moment they began."""

    def __init__(self, ops: Sequence[Operation], may: Prune) -> None:
        self._ops = ops
        self._may = may
        self._wanted = sum(op.end != NEVER for op in ops)
        self._done = bytearray(len(ops))
        self._mask = 0

    def run(self, state: State) -> Verdict:
        seen: set[tuple[int, State]] = set()
        known = 0
        path: list[tuple[int, State, Iterator[tuple[int, State]]]] = []
        choices = self._choices(state)
        verdict = Verdict(None, -1)
        while True:
            if known == self._wanted:
                return Verdict([self._ops[i] for i, *_ in path])
            for i, after in choices:
                if (key := (self._mask | 1 << i, after)) not in seen:
                    seen.add(key)
                    break
            else:
                if len(path) > verdict.longest:
                    verdict = Verdict(None, len(path), [self._ops[i] for i in self._candidates(self._low())], state)
                if not path:
                    return verdict
                i, state, choices = path.pop()
                self._done[i] = 0
                self._mask ^= 1 << i
                known -= self._ops[i].end != NEVER
                continue
            if len(seen) > CONFIGURATIONS_MAX:
                raise Undecided(f'{len(seen)} configurations of {len(self._ops)} operations')
            path.append((i, state, choices))
            self._done[i] = 1
            self._mask |= 1 << i
            known += self._ops[i].end != NEVER
            state = after
            choices = self._choices(state)

    def _low(self) -> int:
        at = self._done.find(0)
        return len(self._ops) if at < 0 else at

    def _candidates(self, low: int) -> list[int]:
        """Operations that may come next: not done, and begun before every undone one ended. Certain ones first."""
        found, bound = [], NEVER + 1
        for i in range(low, len(self._ops)):
            op = self._ops[i]
            if op.call > bound:
                break
            if not self._done[i]:
                found.append(i)
                bound = min(bound, op.end)
        found = [i for i in found if self._ops[i].call < bound]
        return sorted(found, key=lambda i: self._ops[i].end)

    def _choices(self, state: State) -> Iterator[tuple[int, State]]:
        for i in self._candidates(self._low()):
            op = self._ops[i]
            after = step(state, op)
            if after is None:
                continue
            told = op.end != NEVER and op.kind != 'end'  # somebody was told what it did
            if told or after.revision == state.revision or self._may(state, after):
                yield i, after
