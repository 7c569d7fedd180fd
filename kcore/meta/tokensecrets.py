"""Secrets that carry the token of a service account, and how long nobody has used it.

Source: pkg/serviceaccount/legacy.go, pkg/controlplane/controller/legacytokentracking.
"""

from __future__ import annotations

from datetime import datetime

TYPE = 'kubernetes.io/service-account-token'
ACCOUNT, ACCOUNT_UID = 'kubernetes.io/service-account.name', 'kubernetes.io/service-account.uid'
"""Annotations."""
LAST_USED, INVALID_SINCE = 'kubernetes.io/legacy-token-last-used', 'kubernetes.io/legacy-token-invalid-since'
"""Labels, with a day each."""
TRACKING, SINCE = 'kube-apiserver-legacy-service-account-token-tracking', 'since'
"""The ConfigMap in kube-system, and its entry, that say from which day on uses are noted."""


def day(when: datetime) -> str:
    """`when` in UTC; days sort as text."""
    return f'{when:%Y-%m-%d}'


def parse_day(text: str | None) -> datetime | None:
    """Its beginning, in UTC; None for what is no day."""
    try:
        return datetime.strptime(f'{text}Z', '%Y-%m-%d%z')
    except ValueError:
        return None
