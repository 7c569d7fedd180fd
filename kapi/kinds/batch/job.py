"""Job: pods that run to completion."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from kapi.kinds.base import BuiltinStrategy, put_defaults, spec_of
from kapi.kinds.core.pod_defaults import default_template
from kapi.kinds.core.pod_rules import template
from kapi.kinds.printing import AGE, CONTAINERS, IMAGES, SELECTOR
from kapi.kinds.rules import immutable, invalid, not_negative, one_of, required
from kapi.registry.kind import Col, Kind, Obj, Status
from kapi.registry.strategy import Invalid
from kcore.meta.gvk import Resource
from kcore.meta.objects import condition_is, deleting, get_path
from kcore.meta.times import human_duration, parse_time

BACKOFF_LIMIT = 6
UID_LABEL = 'batch.kubernetes.io/controller-uid'
NAME_LABEL = 'batch.kubernetes.io/job-name'
OLD_UID_LABEL, OLD_NAME_LABEL = 'controller-uid', 'job-name'
RESTART = ('Never', 'OnFailure')
_COUNTS = ('parallelism', 'completions', 'backoffLimit', 'activeDeadlineSeconds', 'ttlSecondsAfterFinished',
           'backoffLimitPerIndex', 'maxFailedIndexes')  # fmt: skip
_FIXED = ('completionMode', 'podFailurePolicy', 'backoffLimitPerIndex', 'managedBy', 'successPolicy', 'manualSelector')


class JobStrategy(BuiltinStrategy):
    """Unless the client chose a selector itself, the job's uid becomes the label that finds its pods."""

    default_propagation = 'Orphan'
    orphan_warning = (
        'child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them '
        'or set propagationPolicy=Orphan to suppress this warning'
    )

    def default(self, obj: Obj) -> None:
        spec = spec_of(obj)
        default_job(spec)

    def prepare(self, new: Obj, old: Obj | None) -> None:
        if old is None and not get_path(new, 'spec.manualSelector'):
            uid, name = new['metadata'].get('uid') or '', new['metadata'].get('name') or ''
            spec = spec_of(new)
            metadata = spec.setdefault('template', {}).setdefault('metadata', {})
            labels = metadata.setdefault('labels', {})
            labels |= {UID_LABEL: uid, OLD_UID_LABEL: uid, NAME_LABEL: name, OLD_NAME_LABEL: name}
            spec.setdefault('selector', {}).setdefault('matchLabels', {})[UID_LABEL] = uid

    def rules(self, new: Obj, old: Obj | None) -> Iterator[Invalid]:
        spec = new.get('spec') or {}
        yield from job_rules('spec', spec)
        if spec.get('selector') is None:
            yield required('spec.selector')
        if old is None:
            return
        before = old.get('spec') or {}
        yield from immutable('spec.selector', spec.get('selector'), before.get('selector'))
        for field in _FIXED:
            yield from immutable(f'spec.{field}', spec.get(field), before.get(field))
        if not before.get('suspend') or get_path(old, 'status.startTime'):
            yield from immutable('spec.template', spec.get('template'), before.get('template'))
        if not (spec.get('completionMode') == 'Indexed' and spec.get('completions') == spec.get('parallelism')):
            yield from immutable('spec.completions', spec.get('completions'), before.get('completions'))


def default_job(spec: Obj) -> None:
    if spec.get('completions') is None and spec.get('parallelism') is None:
        spec['completions'] = 1
    put_defaults(spec, parallelism=1, completionMode='NonIndexed', suspend=False)
    if spec.get('backoffLimitPerIndex') is None:
        put_defaults(spec, backoffLimit=BACKOFF_LIMIT)
    else:
        put_defaults(spec, backoffLimit=2**31 - 1)
    put_defaults(spec, podReplacementPolicy='Failed' if spec.get('podFailurePolicy') else 'TerminatingOrFailed')
    default_template(spec.get('template'))


def job_rules(at: str, spec: Obj) -> Iterator[Invalid]:
    for field in _COUNTS:
        yield from not_negative(f'{at}.{field}', spec.get(field))
    yield from one_of(f'{at}.completionMode', spec.get('completionMode'), ('Indexed', 'NonIndexed'), need=False)
    if spec.get('completionMode') == 'Indexed' and spec.get('completions') is None:
        yield required(f'{at}.completions', 'when completion mode is Indexed')
    if spec.get('completionMode') != 'Indexed' and spec.get('backoffLimitPerIndex') is not None:
        value = spec['backoffLimitPerIndex']
        yield invalid(f'{at}.backoffLimitPerIndex', value, 'requires indexed completion mode')
    pod = get_path(spec, 'template.spec') or {}
    yield from template(f'{at}.template', spec.get('template'), restart=RESTART)
    if spec.get('podFailurePolicy') and pod.get('restartPolicy') == 'OnFailure':
        yield invalid(
            f'{at}.template.spec.restartPolicy',
            'OnFailure',
            'only "Never" is supported when podFailurePolicy is specified',
        )


_STATES = (('Complete', 'Complete'), ('Failed', 'Failed'), ('', 'Terminating'), ('Suspended', 'Suspended'),
           ('FailureTarget', 'FailureTarget'), ('SuccessCriteriaMet', 'SuccessCriteriaMet'))  # fmt: skip


def _status(job: Obj, _now: datetime) -> str:
    for condition, word in _STATES:
        if condition_is(job, condition) if condition else deleting(job):
            return word
    return 'Running'


def _completions(job: Obj, _now: datetime) -> str:
    succeeded, spec = get_path(job, 'status.succeeded') or 0, job.get('spec') or {}
    if spec.get('completions') is not None:
        return f'{succeeded}/{spec["completions"]}'
    parallel = spec.get('parallelism') or 0
    return f'{succeeded}/1 of {parallel}' if parallel > 1 else f'{succeeded}/1'


def _duration(job: Obj, now: datetime) -> str:
    start, end = get_path(job, 'status.startTime'), get_path(job, 'status.completionTime')
    if not start:
        return ''
    return human_duration(((parse_time(end) if end else now) - parse_time(start)).total_seconds())


KIND = Kind(
    resource=Resource('batch', 'v1', 'jobs', 'Job'),
    strategy=JobStrategy(),
    categories=('all',),
    subresources=(Status(),),
    columns=(
        Col('Status', _status, description='Where the job stands.'),
        Col('Completions', _completions, description='Pods that succeeded, of all that should.'),
        Col('Duration', _duration, description='How long it ran.'),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ),
    selectable={'status.successful': 'status.succeeded'},
)
