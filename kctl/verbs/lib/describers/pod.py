"""Pods, and the pod templates of workloads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kctl.verbs.lib.describers import related
from kctl.verbs.lib.describers.page import Page, controlled_by, head, when
from kctl.verbs.lib.session import Session

Obj = dict[str, Any]


def describe(session: Session, pod: Obj, page: Page) -> None:
    meta, spec, status = pod['metadata'], pod.get('spec') or {}, pod.get('status') or {}
    head(page, pod)
    page.field('Priority', spec.get('priority', 0))
    if spec.get('priorityClassName'):
        page.field('Priority Class Name', spec['priorityClassName'])
    page.field('Service Account', spec.get('serviceAccountName') or 'default')
    node, host = spec.get('nodeName'), status.get('hostIP')
    page.field('Node', f'{node}/{host or ""}' if node else '<none>')
    if status.get('startTime'):
        page.field('Start Time', when(status['startTime']))
    page.labels(pod)
    page.annotations(pod)
    if meta.get('deletionTimestamp'):
        page.field('Status', f'Terminating (lasts {page.since(meta["deletionTimestamp"])})')
        page.field('Termination Grace Period', f'{meta.get("deletionGracePeriodSeconds", 0)}s')
    else:
        page.field('Status', status.get('phase', ''))
    for name in ('reason', 'message'):
        if status.get(name):
            page.field(name.capitalize(), status[name])
    page.field('IP', status.get('podIP') or '')
    page.line('IPs:' if status.get('podIPs') else 'IPs:\t<none>')
    for ip in status.get('podIPs') or ():
        page.field('IP', ip.get('ip'), 1)
    controlled_by(page, pod)
    for title, key, states in (
        ('Init Containers', 'initContainers', 'initContainerStatuses'),
        ('Containers', 'containers', 'containerStatuses'),
    ):
        if spec.get(key):
            page.line(f'{title}:')
            known = {s['name']: s for s in status.get(states) or ()}
            for c in spec[key]:
                page.line(f'{c["name"]}:', 1)
                _container(page, c, known.get(c['name'], {}))
    _conditions(page, status)
    _volumes(page, spec, 0)
    page.field('QoS Class', status.get('qosClass') or 'BestEffort')
    placement(page, spec)
    page.events(related.events(session, pod))


def template(page: Page, obj: Obj) -> None:
    """The pod template of a workload."""
    spec = obj.get('spec') or {}
    page.line('Pod Template:')
    page.labels(obj, 1)
    if (obj.get('metadata') or {}).get('annotations'):
        page.annotations(obj, 1)
    if spec.get('serviceAccountName'):
        page.field('Service Account', spec['serviceAccountName'], 1)
    for title, key in (('Init Containers', 'initContainers'), ('Containers', 'containers')):
        if spec.get(key):
            page.line(f'{title}:', 1)
            for c in spec[key]:
                page.line(f' {c["name"]}:', 1)
                _container(page, c, None)
    _volumes(page, spec, 1)
    placement(page, spec, 1)


def placement(page: Page, spec: Obj, level: int = 0) -> None:
    page.pairs('Node-Selectors', spec.get('nodeSelector'), level=level)
    texts = [_toleration(t) for t in spec.get('tolerations') or ()]
    for i, text in enumerate(texts or ['<none>']):
        page.line(f'{"Tolerations:" if i == 0 else ""}\t{text}', level)


def _toleration(t: Obj) -> str:
    text = t.get('key', '')
    if t.get('value'):
        text += f'={t["value"]}'
    if t.get('effect'):
        text += f':{t["effect"]}'
    if t.get('operator') == 'Exists':
        text += ' op=Exists' if text else 'op=Exists'
    seconds = t.get('tolerationSeconds')
    return text if seconds is None else f'{text} for {seconds}s'


def _container(page: Page, c: Obj, status: Obj | None) -> None:
    """`status` None: within a template."""
    if status is not None:
        page.field('Container ID', status.get('containerID') or '', 2)
    page.field('Image', c.get('image', ''), 2)
    if status is not None:
        page.field('Image ID', status.get('imageID') or '', 2)
    ports = c.get('ports') or ()
    title = 'Ports' if len(ports) > 1 else 'Port'
    page.field(title, ', '.join(f'{p["containerPort"]}/{p.get("protocol", "TCP")}' for p in ports) or '<none>', 2)
    hosts = ', '.join(f'{p.get("hostPort", 0)}/{p.get("protocol", "TCP")}' for p in ports)
    page.field(f'Host {title}', hosts or '<none>', 2)
    for key in ('command', 'args'):
        if c.get(key):
            page.line(f'{key.capitalize()}:', 2)
            for word in c[key]:
                page.line(word, 3)
    if status is not None:
        _state(page, 'State', status.get('state') or {})
        if status.get('lastState'):
            _state(page, 'Last State', status['lastState'])
        page.field('Ready', str(bool(status.get('ready'))), 2)
        page.field('Restart Count', status.get('restartCount', 0), 2)
    for key in ('limits', 'requests'):
        amounts = (c.get('resources') or {}).get(key)
        if amounts:
            page.line(f'{key.capitalize()}:', 2)
            for name, amount in sorted(amounts.items()):
                page.field(name, amount, 3)
    for kind in ('liveness', 'readiness', 'startup'):
        if c.get(f'{kind}Probe'):
            page.field(kind.capitalize(), _probe(c[f'{kind}Probe']), 2)
    _environment(page, c)
    mounts = c.get('volumeMounts')
    page.line('Mounts:' if mounts else 'Mounts:\t<none>', 2)
    for m in sorted(mounts or (), key=lambda m: str(m['mountPath'])):
        path = f',path="{m["subPath"]}"' if m.get('subPath') else ''
        page.line(f'{m["mountPath"]} from {m["name"]} ({"ro" if m.get("readOnly") else "rw"}{path})', 3)


def _environment(page: Page, c: Obj) -> None:
    sources = c.get('envFrom') or ()
    if sources:
        page.line('Environment Variables from:', 2)
        for s in sources:
            kind, ref = (
                ('ConfigMap', s['configMapRef']) if 'configMapRef' in s else ('Secret', s.get('secretRef') or {})
            )
            page.line(f'{ref.get("name")}\t{kind}\tOptional: {str(bool(ref.get("optional"))).lower()}', 3)
    page.line('Environment:' if c.get('env') else 'Environment:\t<none>', 2)
    for e in c.get('env') or ():
        page.field(e['name'], _value(e), 3)


def _value(e: Obj) -> str:
    source = e.get('valueFrom') or {}
    if 'fieldRef' in source:
        return f' ({source["fieldRef"].get("apiVersion", "v1")}:{source["fieldRef"]["fieldPath"]})'
    if 'resourceFieldRef' in source:
        return f'{source["resourceFieldRef"].get("resource")}'
    for key, kind in (('configMapKeyRef', 'config map'), ('secretKeyRef', 'secret')):
        if key in source:
            ref = source[key]
            text = f"<set to the key '{ref['key']}' {'in' if key == 'secretKeyRef' else 'of'} {kind} '{ref['name']}'>"
            return f'{text}\tOptional: {str(bool(ref.get("optional"))).lower()}'
    return str(e.get('value') or '')


def _state(page: Page, title: str, state: Mapping[str, Obj]) -> None:
    kind = next(iter(state), 'waiting')
    detail = state.get(kind) or {}
    page.field(title, kind.capitalize(), 2)
    for name in ('reason', 'message', 'exitCode', 'signal'):
        if name in detail and (detail[name] or name == 'exitCode'):
            page.field({'exitCode': 'Exit Code'}.get(name, name.capitalize()), detail[name], 3)
    for name in ('startedAt', 'finishedAt'):
        if name in detail:
            page.field(name.removesuffix('At').capitalize(), when(detail[name]), 3)


def _probe(p: Obj) -> str:
    if 'httpGet' in p:
        get = p['httpGet']
        where = f'{get.get("scheme", "HTTP").lower()}://{get.get("host", "")}:{get.get("port")}{get.get("path", "")}'
        what = f'http-get {where}'
    elif 'tcpSocket' in p:
        what = f'tcp-socket {p["tcpSocket"].get("host", "")}:{p["tcpSocket"].get("port")}'
    elif 'grpc' in p:
        what = f'grpc <pod>:{p["grpc"].get("port")} {p["grpc"].get("service") or ""}'
    else:
        what = f'exec [{" ".join((p.get("exec") or {}).get("command") or ())}]'
    return (
        f'{what} delay={p.get("initialDelaySeconds", 0)}s timeout={p.get("timeoutSeconds", 1)}s '
        f'period={p.get("periodSeconds", 10)}s #success={p.get("successThreshold", 1)} '
        f'#failure={p.get("failureThreshold", 3)}'
    )


def _conditions(page: Page, status: Obj) -> None:
    if status.get('conditions'):
        page.line('Conditions:')
        page.line('Type\tStatus', 1)
        for c in status['conditions']:
            page.line(f'{c["type"]} \t{c["status"]} ', 1)


_VOLUMES: Mapping[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    'emptyDir': ('EmptyDir (a temporary directory that shares a pod\'s lifetime)',
                 (('Medium', 'medium'), ('SizeLimit', 'sizeLimit'))),
    'hostPath': ('HostPath (bare host directory volume)', (('Path', 'path'), ('HostPathType', 'type'))),
    'configMap': ('ConfigMap (a volume populated by a ConfigMap)', (('Name', 'name'), ('Optional', 'optional'))),
    'secret': ('Secret (a volume populated by a Secret)', (('SecretName', 'secretName'), ('Optional', 'optional'))),
    'persistentVolumeClaim': (
        'PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)',
        (('ClaimName', 'claimName'), ('ReadOnly', 'readOnly'))),
    'projected': ('Projected (a volume that contains injected data from multiple sources)', ()),
}  # fmt: skip


def _volumes(page: Page, spec: Obj, level: int) -> None:
    volumes = spec.get('volumes') or ()
    page.line('Volumes:' if volumes else 'Volumes:\t<none>', level)
    for v in volumes:
        page.line(f' {v["name"]}:' if level else f'{v["name"]}:', level or 1)
        kind = next((k for k in v if k != 'name'), '')
        text, fields = _VOLUMES.get(kind, (kind, ()))
        page.field('Type', text, level + 1 if level else 2)
        for title, key in fields:
            value = (v.get(kind) or {}).get(key)
            default = {'sizeLimit': '<unset>', 'optional': 'false', 'readOnly': 'false'}.get(key, '')
            shown = str(value).lower() if isinstance(value, bool) else value if value is not None else default
            page.field(title, shown, level + 1 if level else 2)
