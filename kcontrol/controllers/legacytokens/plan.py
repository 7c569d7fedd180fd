"""Which tokens are called invalid, and which are deleted. Pure.

Only tokens that were made by themselves: their Secret is listed in the ServiceAccount. One that nobody has used for a
period is marked; after another one it goes.
Source: pkg/controller/serviceaccount/legacy_serviceaccount_token_cleaner.go.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Literal

from kclient.model import Obj
from kcore.meta.objects import annotations_of, deleting, labels_of, name_of, uid_of
from kcore.meta.times import parse_time
from kcore.meta.tokensecrets import ACCOUNT_UID, INVALID_SINCE, LAST_USED, SINCE, TYPE, day, parse_day

Step = Literal['leave', 'mark', 'delete']


def tracked_long_enough(tracking: Obj | None, now: datetime, period: timedelta) -> bool:
    """Whether a use within the period would have been noted; the day on which tracking began does not count."""
    since = parse_day((tracking.get('data') or {}).get(SINCE)) if tracking is not None else None
    return since is not None and now >= since + timedelta(days=1) + period


def plan(secret: Obj, account: Obj | None, mounted: Collection[str], now: datetime, period: timedelta) -> Step:
    """account: the one that the Secret names. mounted: names of the Secrets that pods use."""
    first_day, labels = day(now - period), labels_of(secret)
    if secret.get('type') != TYPE or deleting(secret):
        return 'leave'
    if parse_time(secret['metadata']['creationTimestamp']) >= now - period:
        return 'leave'
    used = labels.get(LAST_USED)
    if used is not None and (parse_day(used) is None or used >= first_day):
        return 'leave'
    if account is None or not _belongs(secret, account) or name_of(secret) in mounted:
        return 'leave'
    invalid = labels.get(INVALID_SINCE)
    if parse_day(invalid) is None:
        return 'mark'
    return 'delete' if str(invalid) < first_day else 'leave'


def _belongs(secret: Obj, account: Obj) -> bool:
    uid = annotations_of(secret).get(ACCOUNT_UID)
    listed = any(ref.get('name') == name_of(secret) for ref in account.get('secrets') or ())
    return listed and uid in (None, '', uid_of(account))
