"""podFailurePolicy and successPolicy: what a pod's end means for its Job. Pure.

Source: pkg/controller/job/pod_failure_policy.go, success_policy.go.
"""

from __future__ import annotations

from typing import Literal

from kclient.model import Obj
from kcontrol.controllers.job.indexes import parse
from kcore.meta.objects import key_of

Action = Literal['Count', 'Ignore', 'FailJob', 'FailIndex']
ACTIONS: dict[str, Action] = {'Ignore': 'Ignore', 'FailJob': 'FailJob', 'FailIndex': 'FailIndex'}


def action_of(job: Obj, pod: Obj) -> tuple[Action, str]:
    """(action of the first rule that matches the failed pod, message for the Job's condition)."""
    policy = (job.get('spec') or {}).get('podFailurePolicy') or {}
    for number, rule in enumerate(policy.get('rules') or ()):
        message = _exit_code_match(rule, pod, number) or _condition_match(rule, pod, number)
        if message:
            return ACTIONS.get(str(rule.get('action')), 'Count'), message
    return 'Count', ''


def _exit_code_match(rule: Obj, pod: Obj, number: int) -> str:
    wanted = rule.get('onExitCodes')
    if not wanted:
        return ''
    status = pod.get('status') or {}
    for container in [*(status.get('initContainerStatuses') or ()), *(status.get('containerStatuses') or ())]:
        ended = (container.get('state') or {}).get('terminated')
        if not ended or not ended.get('exitCode'):
            continue
        if wanted.get('containerName') not in (None, container.get('name')):
            continue
        if (ended['exitCode'] in (wanted.get('values') or ())) == (wanted.get('operator') == 'In'):
            return (
                f'Container {container.get("name")} for pod {key_of(pod)} failed with exit code {ended["exitCode"]} '
                f'matching {rule.get("action")} rule at index {number}'
            )
    return ''


def _condition_match(rule: Obj, pod: Obj, number: int) -> str:
    held = {c.get('type'): c.get('status') for c in (pod.get('status') or {}).get('conditions') or ()}
    for pattern in rule.get('onPodConditions') or ():
        if held.get(pattern.get('type')) == (pattern.get('status') or 'True'):
            return (
                f'Pod {key_of(pod)} has condition {pattern.get("type")} matching {rule.get("action")} rule '
                f'at index {number}'
            )
    return ''


def success_rule(job: Obj, completed: set[int]) -> str:
    """The message of the first success rule that the completed indexes satisfy, '' when none is."""
    policy = (job.get('spec') or {}).get('successPolicy') or {}
    for number, rule in enumerate(policy.get('rules') or ()):
        wanted, count = rule.get('succeededIndexes'), rule.get('succeededCount')
        among = completed & parse(wanted) if wanted else completed
        enough = len(among) >= int(count) if count is not None else wanted is not None and among == parse(wanted)
        if enough:
            return f'Matched rules at index {number}'
    return ''
