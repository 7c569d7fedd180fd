"""Which names a definition gets, and its conditions. Pure.

Source: apiextensions-apiserver pkg/controller/status/naming_controller.go, establish/establishing_controller.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from kcore.meta.objects import condition_is, get_condition, set_condition

Obj = dict[str, Any]


def accept(crd: Obj, others: Iterable[Obj], now: datetime) -> bool:
    """Settle `status.acceptedNames` and the conditions, in place; returns whether anything changed.

    others:  the definitions beside this one, of any group.
    """
    group, wanted = crd['spec']['group'], crd['spec']['names']
    neighbours = [(o.get('status') or {}).get('acceptedNames') or {} for o in others if o['spec'].get('group') == group]
    resources = {n for a in neighbours for n in (a.get('plural'), a.get('singular'), *(a.get('shortNames') or ())) if n}
    kinds = {n for a in neighbours for n in (a.get('kind'), a.get('listKind')) if n}
    status = crd.setdefault('status', {})
    accepted: Obj = dict(status.get('acceptedNames') or {})
    before = dict(accepted)
    reason, message = '', ''
    for field, taken in (('plural', resources), ('singular', resources), ('kind', kinds), ('listKind', kinds)):
        value = wanted.get(field) or ''
        if value and value in taken:
            reason, message = f'{field[0].upper()}{field[1:]}Conflict', f'"{value}" is already in use'
        elif value:
            accepted[field] = value
    clashing = [n for n in wanted.get('shortNames') or () if n in resources]
    if clashing:
        reason, message = 'ShortNamesConflict', f'"{clashing[0]}" is already in use'
    else:
        _put(accepted, 'shortNames', wanted.get('shortNames'))
    _put(accepted, 'categories', wanted.get('categories'))
    accepted.setdefault('plural', '')
    accepted.setdefault('kind', '')
    status['acceptedNames'] = accepted
    changed = accepted != before
    if reason:
        changed |= set_condition(crd, 'NamesAccepted', 'False', now, reason=reason, message=message)
        if get_condition(crd, 'Established') is None:
            why = 'not all names are accepted'
            changed |= set_condition(crd, 'Established', 'False', now, reason='NotAccepted', message=why)
        return changed
    changed |= set_condition(crd, 'NamesAccepted', 'True', now, reason='NoConflicts', message='no conflicts found')
    if not condition_is(crd, 'Established'):
        why = 'the initial names have been accepted'
        changed |= set_condition(crd, 'Established', 'True', now, reason='InitialNamesAccepted', message=why)
    return changed


def _put(accepted: Obj, field: str, value: Any) -> None:
    if value:
        accepted[field] = value
    else:
        accepted.pop(field, None)
