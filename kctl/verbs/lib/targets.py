"""Which objects a command is about: `pods a b`, `pod/a svc/b`, `nodes,pods`, -l, --all, -f."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kctl.verbs.lib.errors import CliError

if TYPE_CHECKING:
    from kctl.verbs.lib.discovery import Known
    from kctl.verbs.lib.session import Session

Obj = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """One resource, and a name unless all (or selected) objects are meant."""

    known: Known
    name: str | None = None
    namespace: str | None = None
    """None for a cluster-scoped object."""

    @property
    def label(self) -> str:
        """`deployment.apps/hello`."""
        return f'{self.known.label}/{self.name}'

    @property
    def path(self) -> str:
        return self.known.resource.path(self.namespace, self.name)


def parse(session: Session, args: Sequence[str]) -> list[Target]:
    """Raises CliError with kubectl's texts."""
    if not args:
        raise CliError('Required resource not specified.')
    if any('/' in a for a in args):
        return [_slashed(session, a) for a in args]
    kinds = _kinds(session, args[0])
    names: Sequence[str | None] = args[1:] or [None]
    return [Target(k, n, session.namespace_for(k)) for k in kinds for n in names]


def named(session: Session, args: Sequence[str], *, default_kind: str = '') -> list[Target]:
    """Like `parse`, but every target must have a name; a bare name is of `default_kind`."""
    if default_kind and len(args) == 1 and '/' not in args[0]:
        args = [default_kind, args[0]]
    found = parse(session, args)
    if any(t.name is None for t in found):
        raise CliError('resource(s) were provided, but no name was specified')
    return found


def _slashed(session: Session, arg: str) -> Target:
    kind, slash, name = arg.partition('/')
    if not slash:
        raise CliError(
            'there is no need to specify a resource type as a separate argument when passing arguments in '
            "resource/name form (e.g. 'kctl get resource/<resource_name>' instead of "
            "'kctl get resource resource/<resource_name>'"
        )
    if not kind or not name or '/' in name:
        raise CliError(f'arguments in resource/name form may not have more than one slash or an empty part: {arg}')
    known = session.catalog.find(kind)
    return Target(known, name, session.namespace_for(known))


def _kinds(session: Session, text: str) -> list[Known]:
    found: list[Known] = []
    for name in filter(None, text.split(',')):
        category = session.catalog.category(name)
        found += [k for k in category or [session.catalog.find(name)] if k not in found]
    return found


def expand(
    session: Session, targets: Sequence[Target], *, labels: str = '', fields: str = '', all_namespaces: bool = False
) -> list[tuple[Target, Obj]]:
    """The objects themselves: named ones are read, others listed. Raises Refused."""
    found: list[tuple[Target, Obj]] = []
    for target in targets:
        if target.name is not None:
            found.append((target, session.http.get(target.path)))
            continue
        for obj in session.items(target.known, all_namespaces=all_namespaces, labels=labels, fields=fields):
            meta = obj['metadata']
            found.append((Target(target.known, meta['name'], meta.get('namespace')), obj))
    return found
