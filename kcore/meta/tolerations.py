"""Whether a toleration covers a taint, both as the API has them. Source: component-helpers/scheduling/corev1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Obj = Mapping[str, Any]


def tolerates(toleration: Obj, taint: Obj) -> bool:
    """Kubernetes' matching of one toleration and one taint."""
    if toleration.get('effect') and toleration['effect'] != taint.get('effect'):
        return False
    if toleration.get('key') and toleration['key'] != taint.get('key'):
        return False
    if toleration.get('operator') == 'Exists':
        return True
    if not toleration.get('key'):
        return False  # an empty key needs Exists
    return (toleration.get('value') or '') == (taint.get('value') or '')


def tolerated(pod: Obj, taint: Obj) -> bool:
    """One of the pod's tolerations covers it, for however long."""
    tolerations: Iterable[Obj] = (pod.get('spec') or {}).get('tolerations') or ()
    return any(tolerates(t, taint) for t in tolerations)
