"""Request options as data: what stands in the query (and, for DELETE, in the body), checked with upstream's texts.

Source: apimachinery/pkg/apis/meta/v1/validation, pkg/apis/meta/internalversion/validation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kapi.errors import BadRequest, InvalidObject
from kapi.registry.strategy import Invalid

Query = Mapping[str, Sequence[str]]
Validation = Literal['Ignore', 'Warn', 'Strict']

FIELD_MANAGER_CHARS_MAX = 128
_INTEGER = re.compile(r'[+-]?[0-9]{1,64}')
_UNSIGNED = re.compile(r'[0-9]{1,64}')


def text(query: Query, name: str) -> str:
    values = query.get(name)
    return values[0] if values else ''


def flag(query: Query, name: str) -> bool:
    """Only absence, `0` and `false` are false."""
    values = query.get(name)
    return bool(values) and values[0].lower() not in {'0', 'false'}  # type: ignore[index]


def number(query: Query, name: str) -> int | None:
    """A 64-bit integer. Raises BadRequest."""
    value = text(query, name)
    if not value:
        return None
    if not _INTEGER.fullmatch(value):
        raise BadRequest(f'strconv.ParseInt: parsing "{value}": invalid syntax')
    found = int(value)
    if not -(2**63) <= found < 2**63:
        raise BadRequest(f'strconv.ParseInt: parsing "{value}": value out of range')
    return found


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """Of create, update and patch."""

    dry_run: bool = False
    field_manager: str = ''
    field_validation: Validation = 'Warn'
    force: bool | None = None


def write_options(query: Query, kind: str, user_agent: str) -> WriteOptions:
    """`kind`: CreateOptions, UpdateOptions or PatchOptions, named in the 422."""
    broken: list[Invalid] = list(_dry_run(query.get('dryRun', ())))
    manager = text(query, 'fieldManager')
    if len(manager) > FIELD_MANAGER_CHARS_MAX:
        broken.append(
            Invalid(
                'fieldManager', f'Too long: may not be more than {FIELD_MANAGER_CHARS_MAX} bytes', 'FieldValueTooLong'
            )
        )
    validation = text(query, 'fieldValidation') or 'Warn'
    if validation not in {'Ignore', 'Warn', 'Strict'}:
        broken.append(_unsupported('fieldValidation', validation, ('', 'Ignore', 'Strict', 'Warn')))
    if broken:
        raise InvalidObject(kind, 'meta.k8s.io', '', broken)
    return WriteOptions(
        dry_run=bool(query.get('dryRun')),
        field_manager=manager or user_agent.partition('/')[0][:FIELD_MANAGER_CHARS_MAX],
        field_validation=validation,  # type: ignore[arg-type]
        force=flag(query, 'force') if 'force' in query else None,
    )


def admission_options(operation: str, options: WriteOptions | DeleteOptions) -> dict[str, Any]:
    """The object that admission is shown of them: CreateOptions, UpdateOptions or DeleteOptions."""
    shown: dict[str, Any] = {'kind': f'{operation.capitalize()}Options', 'apiVersion': 'meta.k8s.io/v1'}
    if options.dry_run:
        shown['dryRun'] = ['All']
    if isinstance(options, WriteOptions):
        shown['fieldManager'] = options.field_manager
        shown['fieldValidation'] = options.field_validation
        return {k: v for k, v in shown.items() if v}
    given = {'uid': options.uid, 'resourceVersion': options.resource_version}
    if preconditions := {k: v for k, v in given.items() if v}:
        shown['preconditions'] = preconditions
    if options.grace_period_s is not None:
        shown['gracePeriodSeconds'] = options.grace_period_s
    if options.propagation:
        shown['propagationPolicy'] = options.propagation
    return shown


def _dry_run(values: Sequence[str]) -> Iterator[Invalid]:
    for value in values:
        if value != 'All':
            yield _unsupported('dryRun', str(list(values)).replace("'", '"'), ('All',), quote=False)


def _unsupported(field: str, value: str, allowed: Sequence[str], *, quote: bool = True) -> Invalid:
    shown = f'"{value}"' if quote else value
    listed = ', '.join(f'"{a}"' for a in allowed)
    return Invalid(field, f'Unsupported value: {shown}: supported values: {listed}', 'FieldValueNotSupported')


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    grace_period_s: int | None = None
    propagation: str = ''
    """Background, Foreground, Orphan, or empty for the kind's default."""
    uid: str = ''
    resource_version: str = ''
    dry_run: bool = False


def delete_options(query: Query, body: Mapping[str, Any] | None) -> DeleteOptions:
    """Options of the body, or of the query when there is no body. Raises InvalidObject, BadRequest."""
    given: dict[str, Any] = dict(body or {})
    if not body:
        given = {k: text(query, k) for k in ('propagationPolicy',) if k in query}
        if (grace := number(query, 'gracePeriodSeconds')) is not None:
            given['gracePeriodSeconds'] = grace
        if 'orphanDependents' in query:
            given['orphanDependents'] = flag(query, 'orphanDependents')
        if query.get('dryRun'):
            given['dryRun'] = list(query['dryRun'])
    broken = list(_dry_run(given.get('dryRun') or ()))
    policy = given.get('propagationPolicy') or ''
    orphan = given.get('orphanDependents')
    if policy and orphan is not None:
        broken.append(
            Invalid(
                'propagationPolicy',
                f'Invalid value: "{policy}": orphanDependents and deletionPropagation cannot be both set',
            )
        )
    elif policy and policy not in {'Background', 'Foreground', 'Orphan'}:
        broken.append(_unsupported('propagationPolicy', policy, ('Foreground', 'Background', 'Orphan', 'nil')))
    grace = given.get('gracePeriodSeconds')
    if grace is not None and not isinstance(grace, int):
        raise BadRequest(
            'json: cannot unmarshal string into Go struct field DeleteOptions.gracePeriodSeconds of type int64'
        )
    if broken:
        raise InvalidObject('DeleteOptions', 'meta.k8s.io', '', broken)
    if orphan is not None:
        policy = 'Orphan' if orphan else 'Background'
    conditions = given.get('preconditions') or {}
    return DeleteOptions(
        grace_period_s=1 if grace is not None and grace < 0 else grace,
        propagation=policy,
        uid=conditions.get('uid') or '',
        resource_version=conditions.get('resourceVersion') or '',
        dry_run=bool(given.get('dryRun')),
    )


@dataclass(frozen=True, slots=True)
class ListOptions:
    """Of list, watch and deletecollection."""

    label_selector: str = ''
    field_selector: str = ''
    resource_version: str = ''
    match: str = ''
    limit: int = 0
    continue_: str = ''
    watch: bool = False
    bookmarks: bool = False
    initial_events: bool | None = None
    timeout_s: int | None = None

    @property
    def version(self) -> int:
        return int(self.resource_version or 0)


def list_options(query: Query) -> ListOptions:
    """Raises InvalidObject (ListOptions) for combinations that make no sense, BadRequest for malformed numbers."""
    options = ListOptions(
        label_selector=text(query, 'labelSelector'),
        field_selector=text(query, 'fieldSelector'),
        resource_version=text(query, 'resourceVersion'),
        match=text(query, 'resourceVersionMatch'),
        limit=max(number(query, 'limit') or 0, 0),
        continue_=text(query, 'continue'),
        watch=flag(query, 'watch'),
        bookmarks=flag(query, 'allowWatchBookmarks'),
        initial_events=flag(query, 'sendInitialEvents') if 'sendInitialEvents' in query else None,
        timeout_s=number(query, 'timeoutSeconds'),
    )
    if broken := list(_list_rules(options)):
        raise InvalidObject('ListOptions', 'meta.k8s.io', '', broken)
    return options


def _list_rules(o: ListOptions) -> Iterator[Invalid]:
    def forbidden(field: str, why: str) -> Invalid:
        return Invalid(field, f'Forbidden: {why}', 'FieldValueForbidden')

    given = o.resource_version
    if given and (not _UNSIGNED.fullmatch(given) or o.version >= 2**64):
        why = 'value out of range' if _UNSIGNED.fullmatch(given) else 'invalid syntax'
        yield Invalid('resourceVersion', f'Invalid value: "{given}": strconv.ParseUint: parsing "{given}": {why}')
        return
    if o.watch and o.initial_events is not None:
        if o.match != 'NotOlderThan':
            yield forbidden(
                'resourceVersionMatch', 'sendInitialEvents requires setting resourceVersionMatch to NotOlderThan'
            )
        if o.initial_events and not o.bookmarks:
            yield forbidden('sendInitialEvents', 'sendInitialEvents requires setting allowWatchBookmarks to true')
        return
    if o.initial_events is not None:
        yield forbidden('sendInitialEvents', 'sendInitialEvents is forbidden for list')
    if not o.match:
        return
    if o.watch:
        yield forbidden(
            'resourceVersionMatch', 'resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided'
        )
    if not o.resource_version:
        yield forbidden('resourceVersionMatch', 'resourceVersionMatch is forbidden unless resourceVersion is provided')
    if o.continue_:
        yield forbidden('resourceVersionMatch', 'resourceVersionMatch is forbidden when continue is provided')
    if o.match not in {'Exact', 'NotOlderThan'}:
        yield _unsupported('resourceVersionMatch', o.match, ('Exact', 'NotOlderThan', ''))
    elif o.match == 'Exact' and o.resource_version == '0':
        yield forbidden('resourceVersionMatch', 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"')
