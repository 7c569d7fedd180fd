"""Ask the metrics APIs, and turn each metric of a spec into a proposal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

import orjson

from kclient.api import Client
from kclient.discovery import Discovery
from kclient.errors import ApiError, failure, from_status
from kclient.model import Obj
from kcontrol.controllers.horizontalpodautoscaler.plan import Answer
from kcontrol.controllers.horizontalpodautoscaler.replicas import (
    NoMetric,
    Proposal,
    Sample,
    Tolerances,
    by_average,
    by_share,
    by_total,
    by_utilization,
    group,
    propose,
    requests_of,
)
from kcore.meta import quantity
from kcore.meta.objects import name_of
from kcore.meta.selectors import from_label_selector, go_selector
from kcore.meta.times import parse_time

RESOURCE, CUSTOM = '/apis/metrics.k8s.io/v1beta1', '/apis/custom.metrics.k8s.io/v1beta2'
EXTERNAL = '/apis/external.metrics.k8s.io/v1beta1'
_FIELDS = {
    'Resource': 'resource', 'ContainerResource': 'containerResource', 'Pods': 'pods', 'Object': 'object',
    'External': 'external',
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """What is scaled, as its scale subresource tells it, and its pods."""

    namespace: str
    replicas: int
    observed: int
    selector: str
    pods: Sequence[Obj]


async def answer(client: Client, metric: Obj, target: Target, tolerances: Tolerances, found: Discovery) -> Answer:
    """Never raises for a metric that cannot be had: that is an answer too."""
    kind = str(metric.get('type'))
    source = metric.get(_FIELDS.get(kind, ''))
    if source is None:
        return Answer('', None, None, f'unknown metric source type "{kind}"', 'InvalidMetricSourceType')
    name = _name(kind, source)
    try:
        now = client.env.clock.wall()
        proposal = await _propose(client, kind, source, (target, tolerances, now), found)
    except (ApiError, NoMetric) as e:
        error = f'{_trouble(kind, source, target.namespace)}{e}'
        return Answer(name, None, None, error, f'FailedGet{kind}Metric', _context(kind, source))
    return Answer(name, proposal, _current(kind, source, proposal))


def _metric(source: Obj) -> str:
    return str(source.get('name') or (source.get('metric') or {}).get('name') or '')


def _name(kind: str, source: Obj) -> str:
    """How a metric is called in messages."""
    if kind in ('Resource', 'ContainerResource'):
        percent = (source.get('target') or {}).get('averageUtilization') is not None
        inner = ' container' if kind == 'ContainerResource' else ''
        return f'{_metric(source)}{inner} resource{" utilization (percentage of request)" if percent else ""}'
    if kind == 'Pods':
        return f'pods metric {_metric(source)}'
    if kind == 'Object' and (source.get('target') or {}).get('averageValue') is None:
        return f'{source["describedObject"]["kind"]} metric {_metric(source)}'
    return f'external metric {_metric(source)}({go_selector(source["metric"].get("selector"))})'


def _trouble(kind: str, source: Obj, namespace: str) -> str:
    """What was tried, in the words before the error."""
    if kind in ('Resource', 'ContainerResource'):
        percent = (source.get('target') or {}).get('averageUtilization') is not None
        return f'failed to get {_metric(source)} {"utilization" if percent else "usage"}: '
    if kind == 'Pods':
        return f'unable to get metric {_metric(source)}: '
    if kind == 'Object':
        ref = source['describedObject']
        return f'unable to get metric {_metric(source)}: {ref["kind"]} on {namespace} {ref["name"]}/'
    selector = go_selector(source['metric'].get('selector'))
    return f'unable to get external metric {namespace}/{_metric(source)}/{selector}: '


def _context(kind: str, source: Obj) -> str:
    """What the failure of the whole pass says of one metric, before its error."""
    name = _metric(source)
    if kind == 'Resource':
        return f'failed to get {name} resource metric value: '
    if kind == 'ContainerResource':
        return f'failed to get {name} container metric value: '
    if kind in ('Object', 'Pods'):
        return f'failed to get {kind.lower()} metric value: '
    each = (source.get('target') or {}).get('averageValue') is not None
    inner = f'{name} external metric' if each else f'external metric {name}'
    return f'failed to get {name} external metric value: failed to get {inner}: '


async def _propose(
    client: Client, kind: str, source: Obj, about: tuple[Target, Tolerances, datetime], found: Discovery
) -> Proposal:
    target, tolerances, now = about
    if kind in ('Resource', 'ContainerResource'):
        container = str(source.get('container') or '')
        samples = await resource_samples(client, target, str(source['name']), container)
        return _resource(target, source, samples, container, (tolerances, now))
    goal = source.get('target') or {}
    if kind == 'Pods':
        samples = await _pod_samples(client, target, source['metric'])
        wanted = quantity.milli(goal['averageValue'])
        groups = group(target.pods, samples, cpu=False, now=now)
        assumed = {name_of(p): wanted for p in target.pods}
        return propose(target.replicas, groups, samples, by_average(wanted), assumed=assumed, tolerances=tolerances)
    usage = await (
        _object_usage(client, target, source, found) if kind == 'Object' else _external_usage(client, target, source)
    )
    if goal.get('averageValue') is not None:
        wanted = quantity.milli(goal['averageValue'])
        return by_share(target.replicas, target.observed, usage, wanted, tolerances)
    return by_total(target.replicas, target.pods, usage, quantity.milli(goal['value']), tolerances)


def _resource(
    target: Target, source: Obj, samples: Mapping[str, Sample], container: str, rest: tuple[Tolerances, datetime]
) -> Proposal:
    tolerances, now = rest
    resource, goal = str(source['name']), source.get('target') or {}
    groups = group(target.pods, samples, cpu=resource == 'cpu', now=now)
    if goal.get('averageUtilization') is None:
        wanted = quantity.milli(goal['averageValue'])
        assumed = {name_of(p): wanted for p in target.pods}
        return propose(target.replicas, groups, samples, by_average(wanted), assumed=assumed, tolerances=tolerances)
    percent = int(goal['averageUtilization'])
    requests = {name_of(p): requests_of(p, resource, container) for p in target.pods}
    # On the way down a pod without a metric is taken to use all that it asked for, or the target when that is more.
    assumed = {name: amount * max(100, percent) // 100 for name, amount in requests.items()}
    return propose(
        target.replicas, groups, samples, by_utilization(requests, percent), assumed=assumed, tolerances=tolerances
    )


async def resource_samples(client: Client, target: Target, resource: str, container: str) -> dict[str, Sample]:
    """Pod name → usage. Raises ApiError, NoMetric."""
    path = f'{RESOURCE}/namespaces/{target.namespace}/pods'
    samples: dict[str, Sample] = {}
    what = f'unable to get metrics for resource {resource}: '
    for item in await _items(client, path, f'{what}unable to fetch metrics from resource', target.selector):
        usages = [
            (c.get('usage') or {}).get(resource)
            for c in item.get('containers') or ()
            if not container or c.get('name') == container
        ]
        known = [quantity.milli(u) for u in usages if u is not None]
        if known and len(known) == len(usages):
            samples[name_of(item)] = _sample(item, sum(known))
    if not samples:
        raise NoMetric(f'{what}no metrics returned from resource metrics API')
    return samples


def _sample(item: Obj, value: int) -> Sample:
    window = str(item.get('window') or item.get('windowSeconds') or '30').removesuffix('s')
    seconds = float(window) if window.replace('.', '', 1).isdigit() else 30.0
    return Sample(value, parse_time(item['timestamp']), seconds)


async def _pod_samples(client: Client, target: Target, metric: Obj) -> dict[str, Sample]:
    path = f'{CUSTOM}/namespaces/{target.namespace}/pods/*/{quote(str(metric["name"]))}'
    items = await _items(client, path, 'unable to fetch metrics from custom', target.selector, metric)
    found = {str(i['describedObject']['name']): _sample(i, quantity.milli(i['value'])) for i in items}
    if not found:
        raise NoMetric('no metrics returned from custom metrics API')
    return found


async def _object_usage(client: Client, target: Target, source: Obj, found: Discovery) -> int:
    ref, metric = source['describedObject'], source['metric']
    resource = found.find(str(ref.get('apiVersion') or 'v1'), str(ref['kind']))
    if resource is None:
        raise NoMetric(f'unknown kind {ref.get("kind")!r}')
    where = f'namespaces/{target.namespace}/' if resource.namespaced else ''
    path = f'{CUSTOM}/{where}{resource.qualified}/{quote(str(ref["name"]))}/{quote(str(metric["name"]))}'
    items = await _items(client, path, 'unable to fetch metrics from custom', '', metric)
    if not items:
        raise NoMetric('no metrics returned from custom metrics API')
    return quantity.milli(items[0]['value'])


async def _external_usage(client: Client, target: Target, source: Obj) -> int:
    metric = source['metric']
    selector = str(from_label_selector(metric['selector'])) if metric.get('selector') else ''
    path = f'{EXTERNAL}/namespaces/{target.namespace}/{quote(str(metric["name"]))}'
    items = await _items(client, path, 'unable to fetch metrics from external', selector)
    if not items:
        raise NoMetric('no metrics returned from external metrics API')
    return sum(quantity.milli(i['value']) for i in items)


async def _items(client: Client, path: str, trouble: str, selector: str, metric: Obj | None = None) -> list[Obj]:
    """What a metrics API lists. trouble: the beginning of the error up to the API's name. Raises NoMetric."""
    try:
        return (await _get(client, path, selector, metric)).get('items') or []
    except ApiError as e:
        raise NoMetric(f'{trouble} metrics API: {e}') from e


async def _get(client: Client, path: str, selector: str, metric: Obj | None = None) -> Obj:
    params = {'labelSelector': selector} if selector else {}
    if metric is not None and metric.get('selector'):
        params['metricLabelSelector'] = str(from_label_selector(metric['selector']))
    response = await client.request('GET', path, params=params)
    raw = await response.read()
    if response.status >= 400:
        raise from_status(failure(response.status, '', _refusal(response.status, path, raw)))
    body: Obj = orjson.loads(raw)
    return body


def _refusal(code: int, path: str, raw: bytes) -> str:
    """The server's own words; where it has none, those that client-go would have."""
    try:
        return str(orjson.loads(raw)['message'])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        parts = path.split('/')
        group, resource = parts[2], parts[6] if len(parts) > 6 else parts[-1]
        if code == 404 and group == CUSTOM.split('/')[2]:
            return f'no custom metrics API ({group}) registered'
        text = raw[:200].decode('utf-8', 'replace').strip()
        said = {
            404: 'the server could not find the requested resource',
            503: 'the server is currently unable to handle the request',
        }.get(code, f'an error on the server ("{text}") has prevented the request from succeeding')
        return f'{said} (get {resource}.{group})'


def _current(kind: str, source: Obj, proposal: Proposal) -> Obj:
    amount: Obj = {}
    if kind in ('Object', 'External') and (source.get('target') or {}).get('averageValue') is None:
        amount['value'] = f'{proposal.average}m' if proposal.average % 1000 else str(proposal.average // 1000)
    else:
        amount['averageValue'] = f'{proposal.average}m' if proposal.average % 1000 else str(proposal.average // 1000)
    if proposal.utilization is not None:
        amount['averageUtilization'] = proposal.utilization
    shown = {k: source[k] for k in ('name', 'container', 'metric', 'describedObject') if k in source}
    return {'type': kind, _FIELDS[kind]: {**shown, 'current': amount}}
