"""Event in the newer group: the same stored objects as v1 Events, under other field names.

Source of the pairs: pkg/apis/events/v1/conversion.go.
"""

from __future__ import annotations

from kapi.kinds.core import event
from kapi.kinds.core.event import INVOLVED, source_text
from kapi.registry.kind import Alias, Kind, Obj
from kcore.meta import gvk
from kcore.meta.gvk import Resource

_RENAMED = {
    'regarding': 'involvedObject',
    'note': 'message',
    'deprecatedSource': 'source',
    'deprecatedFirstTimestamp': 'firstTimestamp',
    'deprecatedLastTimestamp': 'lastTimestamp',
    'deprecatedCount': 'count',
    'reportingController': 'reportingComponent',
}
_BACK = {stored: served for served, stored in _RENAMED.items()}


def _to_served(obj: Obj) -> Obj:
    return {_BACK.get(k, k): v for k, v in obj.items()} | {'apiVersion': 'events.k8s.io/v1'}


def _to_stored(obj: Obj) -> Obj:
    return {_RENAMED.get(k, k): v for k, v in obj.items()} | {'apiVersion': 'v1'}


KIND = Kind(
    resource=Resource('events.k8s.io', 'v1', 'events', 'Event'),
    short=('ev',),
    columns=event.KIND.columns,
    name_first=False,
    selectable={f'regarding.{field}': f'involvedObject.{field}' for field in INVOLVED}
    | {'reason': 'reason', 'reportingController': source_text, 'type': 'type'},
    storage=gvk.EVENTS,
    alias=Alias(event.KIND, _to_served, _to_stored),
)
