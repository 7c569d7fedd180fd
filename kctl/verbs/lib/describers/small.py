"""Services, namespaces, config maps, secrets."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from kcore.meta.gvk import Resource
from kctl.verbs.lib.describers import related
from kctl.verbs.lib.describers.page import Page, head
from kctl.verbs.lib.session import Session

Obj = dict[str, Any]

ENDPOINT_SLICES = Resource('discovery.k8s.io', 'v1', 'endpointslices', 'EndpointSlice')
ENDPOINTS_SHOWN = 3
"""Addresses shown of a port; the rest is a number."""
QUOTAS = Resource('', 'v1', 'resourcequotas', 'ResourceQuota')
LIMIT_RANGES = Resource('', 'v1', 'limitranges', 'LimitRange')


def service(session: Session, obj: Obj, page: Page) -> None:
    spec, status = obj.get('spec') or {}, obj.get('status') or {}
    head(page, obj)
    page.labels(obj)
    page.annotations(obj)
    selector = ','.join(f'{k}={v}' for k, v in sorted((spec.get('selector') or {}).items()))
    page.field('Selector', selector or '<none>')
    page.field('Type', spec.get('type', 'ClusterIP'))
    if spec.get('ipFamilyPolicy'):
        page.field('IP Family Policy', spec['ipFamilyPolicy'])
    if spec.get('ipFamilies'):
        page.field('IP Families', ','.join(spec['ipFamilies']))
    page.field('IP', spec.get('clusterIP') or '')
    page.field('IPs', ','.join(spec.get('clusterIPs') or ()) or '<none>')
    for ingress in (status.get('loadBalancer') or {}).get('ingress') or ():
        page.field('LoadBalancer Ingress', ingress.get('ip') or ingress.get('hostname') or '')
    addresses = _addresses(session, obj)
    for port in spec.get('ports') or ():
        name, protocol = port.get('name') or '<unset>', port.get('protocol', 'TCP')
        page.line(f'Port:\t{name}  {port["port"]}/{protocol}')
        page.field('TargetPort', f'{port.get("targetPort", port["port"])}/{protocol}')
        if port.get('nodePort'):
            page.line(f'NodePort:\t{name}  {port["nodePort"]}/{protocol}')
        page.field('Endpoints', _shown(addresses.get(port.get('name') or '', [])) if addresses else '<none>')
    page.field('Session Affinity', spec.get('sessionAffinity', 'None'))
    if spec.get('externalTrafficPolicy'):
        page.field('External Traffic Policy', spec['externalTrafficPolicy'])
    if spec.get('internalTrafficPolicy'):
        page.field('Internal Traffic Policy', spec['internalTrafficPolicy'])
    page.events(related.events(session, obj))


def _addresses(session: Session, obj: Obj) -> dict[str, list[str]]:
    """`ip:port` of the ready endpoints, by the service port's name."""
    meta = obj['metadata']
    selector = f'kubernetes.io/service-name={meta["name"]}'
    found: dict[str, list[str]] = {}
    for piece in related.listed(session, ENDPOINT_SLICES, meta['namespace'], labelSelector=selector):
        for port in piece.get('ports') or ():
            ready = [e for e in piece.get('endpoints') or () if (e.get('conditions') or {}).get('ready', True)]
            texts = [f'{ip}:{port.get("port")}' for e in ready for ip in e.get('addresses') or ()]
            found.setdefault(port.get('name') or '', []).extend(texts)
    return found


def _shown(addresses: list[str]) -> str:
    shown = ','.join(addresses[:ENDPOINTS_SHOWN])
    more = len(addresses) - ENDPOINTS_SHOWN
    return f'{shown} + {more} more...' if more > 0 else shown


def namespace(session: Session, obj: Obj, page: Page) -> None:
    name = obj['metadata']['name']
    page.field('Name', name)
    page.labels(obj)
    page.annotations(obj)
    page.field('Status', (obj.get('status') or {}).get('phase', ''))
    for title, r in (('resource quota', QUOTAS), ('LimitRange resource', LIMIT_RANGES)):
        if session.catalog.find_kind(r.api_version, r.kind) is None:
            continue
        found = related.listed(session, r, name)
        page.line('')
        page.line(f'No {title}.' if not found else f'{r.kind}: {", ".join(o["metadata"]["name"] for o in found)}')


def config_map(session: Session, obj: Obj, page: Page) -> None:
    head(page, obj)
    page.labels(obj)
    page.annotations(obj)
    page.line('')
    for title, key in (('Data', 'data'), ('BinaryData', 'binaryData')):
        page.line(title)
        page.line('====')
        for name, value in sorted((obj.get(key) or {}).items()):
            page.line(f'{name}:')
            page.line('----')
            if key == 'binaryData':
                page.line(f'{_size(value)} bytes')
            else:
                for text in str(value).split('\n'):
                    page.line(text.replace('\t', '        '))
            page.line('')
        page.line('')
    page.events(related.events(session, obj))


def secret(_session: Session, obj: Obj, page: Page) -> None:
    """Sizes only: a description may be read over a shoulder."""
    head(page, obj)
    page.labels(obj)
    page.annotations(obj)
    page.line('')
    page.field('Type', obj.get('type', 'Opaque'))
    page.line('')
    page.line('Data')
    page.line('====')
    for name, value in sorted((obj.get('data') or {}).items()):
        page.field(name, f'{_size(value)} bytes')


def _size(value: str) -> int:
    try:
        return len(base64.b64decode(value))
    except (binascii.Error, ValueError):
        return 0
