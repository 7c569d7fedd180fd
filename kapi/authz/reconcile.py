"""Bootstrap roles and bindings kept whole: at every start what is missing of them is added, nothing is taken away.

The annotation `autoupdate: "false"` on an object says hands off. Source: component-helpers/auth/rbac/reconciliation.
"""

from __future__ import annotations

from typing import Any

from kapi.authz.policy import AUTOUPDATE
from kapi.authz.rbac import rule_of, uncovered

Obj = dict[str, Any]


def mended(have: Obj, wanted: Obj) -> Obj:
    """`have` with the rules, subjects, labels and annotations of `wanted` that it lacks."""
    meta = have['metadata']
    if (meta.get('annotations') or {}).get(AUTOUPDATE) == 'false':
        return have
    for field in ('labels', 'annotations'):
        meta[field] = {**(wanted['metadata'].get(field) or {}), **(meta.get(field) or {})}
    if 'rules' in wanted and 'aggregationRule' not in wanted:
        held = [rule_of(r) for r in have.get('rules') or ()]
        missing = [r for r in wanted['rules'] if uncovered([rule_of(r)], held)]
        have['rules'] = [*(have.get('rules') or ()), *missing]
    if 'subjects' in wanted:
        subjects = have.get('subjects') or []
        have['subjects'] = [*subjects, *(s for s in wanted['subjects'] if s not in subjects)]
    return have
