"""The aggregation controller. Source: pkg/controller/clusterroleaggregation."""

from __future__ import annotations

from collections.abc import Iterable

from kclient.model import Obj
from kcontrol.controller import Ctx, Result, Watching, controller
from kcontrol.kinds import CLUSTERROLES
from kcore.meta.objects import labels_of, name_of
from kcore.meta.selectors import from_label_selector


def aggregates(c: Ctx, _old: Obj | None, _new: Obj | None) -> Iterable[str]:
    """Every aggregated role: any change may be one of its parts."""
    return [name_of(r) for r in c.list(CLUSTERROLES) if r.get('aggregationRule')]


def rules_of(role: Obj, roles: Iterable[Obj]) -> list[Obj]:
    """Pure. The union of the selected roles' rules, each once, in the order of names."""
    selectors = [from_label_selector(s) for s in role['aggregationRule'].get('clusterRoleSelectors') or ()]
    found: list[Obj] = []
    for selector in selectors:
        for other in sorted(roles, key=name_of):
            if name_of(other) != name_of(role) and selector.matches(labels_of(other)):
                found += [r for r in other.get('rules') or () if r not in found]
    return found


@controller('clusterrole-aggregation', primary=CLUSTERROLES, watches=[Watching(CLUSTERROLES, aggregates)])
async def reconcile(c: Ctx, key: str) -> Result | None:
    role = c.get(CLUSTERROLES, key)
    if role is None or not role.get('aggregationRule'):
        return None
    wanted = rules_of(role, c.list(CLUSTERROLES))
    if wanted != (role.get('rules') or []):
        await c.patch(CLUSTERROLES, role, {'rules': wanted})
    return None
