"""Event: something worth telling a person; the same objects appear as v1 and as events.k8s.io/v1."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from kapi.kinds.base import PlainStrategy
from kapi.kinds.printing import text
from kapi.kinds.rules import invalid
from kapi.registry.kind import Col, Kind, Obj, TextOf
from kapi.registry.strategy import Invalid
from kcore.meta import gvk, names
from kcore.meta.objects import get_path
from kcore.meta.times import age


class EventStrategy(PlainStrategy):
    """An event in a namespace must speak of an object there; cluster-scoped objects' events live in `default`."""

    create_on_update = True
    name_check = staticmethod(names.path_segment)

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        about = (new.get('involvedObject') or {}).get('namespace') or ''
        home = new['metadata'].get('namespace') or ''
        if about != home and not (not about and home in {'default', 'kube-system'}):
            yield invalid('involvedObject.namespace', about, 'does not match event.namespace')


def _seen(first: bool) -> Col:
    def cell(event: Obj, now: datetime) -> str:
        moment = event.get('firstTimestamp') or event.get('eventTime')
        if not first:
            series = event.get('series')
            moment = series.get('lastObservedTime') if series else event.get('lastTimestamp') or moment
        return age(moment, now)

    if first:
        return Col('First Seen', cell, priority=1, description='Time since it was first seen.')
    return Col('Last Seen', cell, description='Time since it was last seen.')


def _object(event: Obj, _now: datetime) -> str:
    about = event.get('involvedObject') or {}
    kind, name = str(about.get('kind') or '').lower(), str(about.get('name') or '')
    return f'{kind}/{name}' if name else kind


def _source(event: Obj, _now: datetime) -> str:
    source = event.get('source') or {}
    component = source.get('component') or event.get('reportingComponent') or ''
    instance = source.get('host') or event.get('reportingInstance') or ''
    return f'{component}, {instance}' if instance else str(component)


def _count(event: Obj, _now: datetime) -> int:
    return int((event.get('series') or {}).get('count') or event.get('count') or 1)


def _message(event: Obj, _now: datetime) -> str:
    return str(event.get('message') or '').strip()


_COLUMNS = (
    _seen(first=False),
    Col('Type', text('type'), description='Normal or Warning.'),
    Col('Reason', text('reason'), description='Why, in one word.'),
    Col('Object', _object, description='What it is about.'),
    Col('Subobject', text('involvedObject.fieldPath'), priority=1, description='Which part of that object.'),
    Col('Source', _source, priority=1, description='Who reported it.'),
    Col('Message', _message, description='What happened.'),
    _seen(first=True),
    Col('Count', _count, 'string', priority=1, description='How often it happened.'),
    Col('Name', 'metadata.name', format='name', priority=1, description='Name of the event.'),
)


def source_text(event: Obj) -> str:
    """The value of the field selector `source`."""
    return str(get_path(event, 'source.component') or event.get('reportingComponent') or '')


INVOLVED = ('kind', 'namespace', 'name', 'uid', 'apiVersion', 'resourceVersion', 'fieldPath')
_SELECTABLE: dict[str, str | TextOf] = {
    **{f'involvedObject.{field}': f'involvedObject.{field}' for field in INVOLVED},
    'reason': 'reason',
    'reportingComponent': 'reportingComponent',
    'source': source_text,
    'type': 'type',
}

KIND = Kind(
    resource=gvk.EVENTS,
    strategy=EventStrategy(),
    short=('ev',),
    columns=_COLUMNS,
    name_first=False,
    selectable=_SELECTABLE,
)
