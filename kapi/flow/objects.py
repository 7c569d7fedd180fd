"""Flow schemas and levels as stored: those that every cluster has, and whether a schema leads anywhere. Pure.

Mandatory objects are as this release wants them. Of suggested ones the annotation `autoupdate-spec` tells whose they
are: `true` ours, `false` the administrator's; without it they are ours as long as nobody has changed their spec.
Source: apiserver pkg/registry (flowcontrol/ensurer), pkg/util/flowcontrol/apf_controller.go.
"""

from __future__ import annotations

from collections.abc import Container
from datetime import datetime
from typing import Any

from kapi.authz.flow_defaults import AUTOUPDATE, MANDATORY
from kapi.flow.fairness import level_of
from kcore.meta.objects import get_condition, set_condition

Obj = dict[str, Any]
DANGLING = 'Dangling'


def updated(have: Obj, wanted: Obj) -> Obj:
    """`have` with the spec of `wanted` where it is ours, and with the annotation that says so."""
    meta = have['metadata']
    mark = (meta.get('annotations') or {}).get(AUTOUPDATE)
    if meta['name'] in MANDATORY:
        ours = True
    else:
        ours = mark == 'true' if mark in {'true', 'false'} else meta.get('generation') == 1
    meta['annotations'] = {**(meta.get('annotations') or {}), AUTOUPDATE: 'true' if ours else 'false'}
    if ours:
        # How much an exempt level lends is for the administrator to say.
        kept = {'exempt': have['spec']['exempt']} if 'exempt' in have['spec'] and 'exempt' in wanted['spec'] else {}
        have['spec'] = {**wanted['spec'], **kept}
    return have


def tell_dangling(schema: Obj, levels: Container[str], now: datetime) -> Obj:
    """`schema` with a condition that says whether its level exists."""
    level = level_of(schema)
    text = f'This FlowSchema references the PriorityLevelConfiguration object named "{level}"'
    if level in levels:
        set_condition(schema, DANGLING, 'False', now, reason='Found', message=f'{text} and it exists')
    else:
        set_condition(schema, DANGLING, 'True', now, reason='NotFound', message=f'{text} but there is no such object')
    return schema


def told(schema: Obj, levels: Container[str]) -> bool:
    """Whether the condition is there and true."""
    found = get_condition(schema, DANGLING)
    return found is not None and found.get('status') == ('False' if level_of(schema) in levels else 'True')
