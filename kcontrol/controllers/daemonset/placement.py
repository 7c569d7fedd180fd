"""Which nodes a DaemonSet's pod belongs on, and how a pod is tied to its node. Pure.

The scheduler binds the pods; an affinity to `metadata.name` names the node, so that room, ports and volumes are checked
by the one who knows them.
Source: pkg/controller/daemon/util/daemonset_util.go, daemon_controller.go (NodeShouldRunDaemonPod).
"""

from __future__ import annotations

from typing import Any

from kclient.model import Obj
from kcontrol.controllers.replicaset.plan import pod_from_template
from kcontrol.kinds import DAEMONSETS
from kcontrol.revisions import HASH_LABEL
from kcontrol.scheduler.terms import parse_node_term
from kcore.meta.objects import labels_of, name_of, owner_ref
from kcore.meta.tolerations import tolerates

GENERATION_LABEL = 'pod-template-generation'
GENERATION_ANNOTATION = 'deprecated.daemonset.template.generation'
_REQUIRED = 'requiredDuringSchedulingIgnoredDuringExecution'
_EXECUTE = ('not-ready', 'unreachable')
_SCHEDULE = ('disk-pressure', 'memory-pressure', 'pid-pressure', 'unschedulable')


def tolerations(spec: Obj) -> list[Obj]:
    """The template's, and those that keep a daemon on a node in trouble."""
    own = [dict(t) for t in spec.get('tolerations') or ()]
    keys = [(k, 'NoExecute') for k in _EXECUTE] + [(k, 'NoSchedule') for k in _SCHEDULE]
    if spec.get('hostNetwork'):
        keys.append(('network-unavailable', 'NoSchedule'))
    added = [{'key': f'node.kubernetes.io/{k}', 'operator': 'Exists', 'effect': effect} for k, effect in keys]
    return own + [t for t in added if t not in own]


def fits(ds: Obj, node: Obj) -> tuple[bool, bool]:
    """(a pod should run there, a pod that runs there may stay)."""
    spec = ds['spec']['template'].get('spec') or {}
    if spec.get('nodeName') and spec['nodeName'] != name_of(node):
        return False, False
    if not _selected(spec, node):
        return False, False
    tolerated = tolerations(spec)
    effects = {
        t.get('effect')
        for t in (node.get('spec') or {}).get('taints') or ()
        if not any(tolerates(held, t) for held in tolerated)
    }
    return not effects & {'NoSchedule', 'NoExecute'}, 'NoExecute' not in effects


def _selected(spec: Obj, node: Obj) -> bool:
    labels = labels_of(node)
    if any(labels.get(k) != v for k, v in (spec.get('nodeSelector') or {}).items()):
        return False
    required = ((spec.get('affinity') or {}).get('nodeAffinity') or {}).get(_REQUIRED)
    if required is None:
        return True
    terms = required.get('nodeSelectorTerms') or ()
    return any(parse_node_term(term).matches(name_of(node), labels) for term in terms)


def pod_for(ds: Obj, node: str, revision_hash: str) -> Obj:
    """The pod to create for `node`."""
    pod = pod_from_template(ds, owner_ref(ds, DAEMONSETS), ds['spec']['template'])
    labels = {**pod['metadata'].get('labels', {}), HASH_LABEL: revision_hash}
    generation = (ds['metadata'].get('annotations') or {}).get(GENERATION_ANNOTATION)
    labels[GENERATION_LABEL] = str(generation or ds['metadata'].get('generation') or 1)
    pod['metadata']['labels'] = labels
    spec = pod['spec']
    pod['spec'] = {**spec, 'tolerations': tolerations(spec), 'affinity': _tied(spec.get('affinity') or {}, node)}
    return pod


def _tied(affinity: Obj, node: str) -> Obj:
    field = [{'key': 'metadata.name', 'operator': 'In', 'values': [node]}]
    near = affinity.get('nodeAffinity') or {}
    terms: list[dict[str, Any]] = (near.get(_REQUIRED) or {}).get('nodeSelectorTerms') or [{}]
    # Each term gets the node; what it demanded of labels was checked when the node was chosen and still holds.
    required = {'nodeSelectorTerms': [{**term, 'matchFields': field} for term in terms]}
    return {**affinity, 'nodeAffinity': {**near, _REQUIRED: required}}


def node_of(pod: Obj) -> str:
    """Where a pod is, or where its affinity ties it to; '' when neither says."""
    spec = pod.get('spec') or {}
    if spec.get('nodeName'):
        return str(spec['nodeName'])
    near = (spec.get('affinity') or {}).get('nodeAffinity') or {}
    for term in (near.get(_REQUIRED) or {}).get('nodeSelectorTerms') or ():
        for field in term.get('matchFields') or ():
            if field.get('key') == 'metadata.name' and field.get('operator') == 'In' and field.get('values'):
                return str(field['values'][0])
    return ''
