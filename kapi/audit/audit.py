"""Audit: the policy file decides by its first matching rule, and each stage of a request becomes one line.

Whatever a policy says, requests that carry a Secret or a token are kept at Metadata (`secret`). Lines are buffered by
the kernel only. Source: apiserver pkg/audit/policy, audit.k8s.io/v1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson
import structlog
import yaml

from kapi.authn.user import User
from kapi.server.requestinfo import RequestInfo
from kcore.env import AppendFile, Env
from kcore.meta.times import format_micro
from kcore.tasks import BadSetting

Obj = dict[str, Any]
Level = Literal['None', 'Metadata', 'Request', 'RequestResponse']
LEVELS = frozenset({'None', 'Metadata', 'Request', 'RequestResponse'})
STAGES = frozenset({'RequestReceived', 'ResponseStarted', 'ResponseComplete', 'Panic'})
API_VERSION = 'audit.k8s.io/v1'
POLICY_FIELDS = frozenset({'apiVersion', 'kind', 'metadata', 'rules', 'omitStages', 'omitManagedFields'})
RESOURCE_FIELDS = frozenset({'group', 'resources', 'resourceNames'})
RULE_FIELDS = frozenset(
    (
        'level', 'users', 'userGroups', 'verbs', 'resources', 'namespaces', 'nonResourceURLs', 'omitStages',
        'omitManagedFields',
    )
)  # fmt: skip
PATCH_ANNOTATION = 'patch.webhook.admission.k8s.io/'
"""Begins the annotation that holds what a webhook changed; only for levels that keep the request's body."""
log = structlog.get_logger('kapi.audit')
FILE_BYTES_MAX = 100 * 1024 * 1024


_SECRET = frozenset({('', 'secrets'), ('authentication.k8s.io', 'tokenreviews')})


class BadPolicy(BadSetting):
    """A policy file or a log that cannot be used; the text names the rule or the flag."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is kept of one request; `omitted` are stages."""

    level: Level = 'None'
    omitted: frozenset[str] = frozenset()
    omit_managed_fields: bool = False

    @property
    def request_body(self) -> bool:
        return self.level in {'Request', 'RequestResponse'}

    @property
    def response_body(self) -> bool:
        return self.level == 'RequestResponse'


UNHEARD = Decision()


@dataclass(frozen=True, slots=True)
class Policy:
    rules: tuple[Obj, ...]
    omitted: frozenset[str] = frozenset()
    omit_managed_fields: bool = False

    @staticmethod
    def load(path: Path, env: Env) -> Policy:
        """Raises BadPolicy."""
        try:
            document = yaml.safe_load(env.disk.read(path))
            rules = tuple(document['rules'])
            broken = next(_complaints(document), None)
        except (OSError, KeyError, TypeError, AttributeError, yaml.YAMLError) as e:
            raise BadPolicy(f'{path}: no audit policy with rules ({e})') from None
        if broken is not None:
            raise BadPolicy(f'{path}: {broken}')
        omitted = frozenset(document.get('omitStages') or ())
        return Policy(rules, omitted, document.get('omitManagedFields') is True)

    def decide(self, info: RequestInfo, user: User) -> Decision:
        """By the first rule that matches; a rule's word on managed fields goes before the policy's."""
        for rule in self.rules:
            if _matches(rule, info, user):
                level: Level = rule['level']
                if level not in {'None', 'Metadata'} and (not info.is_resource or secret(info)):
                    level = 'Metadata'
                said = rule.get('omitManagedFields')
                omit = self.omit_managed_fields if said is None else said is True
                return Decision(level, self.omitted | frozenset(rule.get('omitStages') or ()), omit)
        return UNHEARD


EVERYTHING = Policy(({'level': 'Metadata'},), frozenset({'RequestReceived'}))


def secret(info: RequestInfo) -> bool:
    """Whether bodies of the request may carry what must never be in a log."""
    return (info.group, info.plural) in _SECRET or info.subresource == 'token'


def _complaints(document: Obj) -> Iterator[str]:
    """What upstream refuses a policy for, with the field's name."""
    if document.get('apiVersion', API_VERSION) != API_VERSION or document.get('kind', 'Policy') != 'Policy':
        yield f'apiVersion, kind: {API_VERSION}, Policy expected'
    if not document['rules']:
        yield 'rules: a policy without rules would keep nothing'
    yield from _listed('', document, POLICY_FIELDS)
    for i, rule in enumerate(document['rules']):
        at = f'rules[{i}].'
        if rule.get('level') not in LEVELS:
            yield f'{at}level: one of {", ".join(sorted(LEVELS))} expected'
        yield from _listed(at, rule, RULE_FIELDS)
        if rule.get('nonResourceURLs') and (rule.get('resources') or rule.get('namespaces')):
            yield f'{at}nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs'
        for url in rule.get('nonResourceURLs') or ():
            if url != '*' and (not url.startswith('/') or '*' in url[:-1]):
                yield f'{at}nonResourceURLs: "{url}": "*", or a path that begins with "/" and has "*" only at its end'
        for j, resource in enumerate(rule.get('resources') or ()):
            yield from _listed(f'{at}resources[{j}].', resource, RESOURCE_FIELDS)
            if '*' in (resource.get('group') or ''):
                yield f'{at}resources[{j}].group: "*" names no group; leave resources out for all of them'
            if resource.get('resourceNames') and not resource.get('resources'):
                yield f'{at}resources[{j}].resourceNames: using resourceNames requires at least one resource'


def _listed(at: str, given: Obj, fields: frozenset[str]) -> Iterator[str]:
    """Fields that nobody knows, and stages that do not exist."""
    for name in given:
        if name not in fields:
            yield f'{at}{name}: unknown field'
    for stage in given.get('omitStages') or ():
        if stage not in STAGES:
            yield f'{at}omitStages: "{stage}": one of {", ".join(sorted(STAGES))} expected'


def _matches(rule: Obj, info: RequestInfo, user: User) -> bool:
    if rule.get('users') and user.name not in rule['users']:
        return False
    if rule.get('userGroups') and not set(rule['userGroups']) & set(user.groups):
        return False
    if rule.get('verbs') and info.verb not in rule['verbs']:
        return False
    if not info.is_resource:
        paths: Sequence[str] = rule.get('nonResourceURLs') or ()
        if rule.get('resources') or rule.get('namespaces'):
            return False
        return not paths or any(
            p in {'*', info.path} or (p[-1:] == '*' and info.path.startswith(p[:-1])) for p in paths
        )
    if rule.get('nonResourceURLs') or (rule.get('namespaces') and info.namespace not in rule['namespaces']):
        return False
    listed = rule.get('resources')
    return not listed or any(_resource(r, info) for r in listed)


def _resource(rule: Obj, info: RequestInfo) -> bool:
    if (rule.get('group') or '') != info.group:
        return False
    full = f'{info.plural}/{info.subresource}' if info.subresource else info.plural
    names = rule.get('resources') or ()
    wild = {'*', full, f'{info.plural}/*', f'*/{info.subresource}' if info.subresource else full}
    return (not names or bool(wild & set(names))) and (
        not rule.get('resourceNames') or info.name in rule['resourceNames']
    )


@dataclass(frozen=True, slots=True)
class Rotation:
    """A log larger than `size_bytes` is renamed to `<name>.1`, and older ones move on up to `<name>.<backups>`."""

    size_bytes: int = FILE_BYTES_MAX
    backups: int = 1


class AuditLog:
    """Writes events; a write that fails is told once a line and never fails the request."""

    def __init__(self, policy: Policy, path: Path, env: Env, rotation: Rotation) -> None:
        self.policy = policy
        self._path = path
        self._env = env
        self._rotation = rotation
        try:
            self._file: AppendFile | None = env.disk.open_append(path)
        except OSError as e:
            raise BadPolicy(f'--audit-log-path {path}: {e.strerror}') from None
        self._torn = False
        """The last line is not whole, because the disk was full."""

    def write(self, stage: str, request: Mapping[str, Any]) -> None:
        event = {
            'kind': 'Event', 'apiVersion': 'audit.k8s.io/v1', 'stage': stage, **request,
            'stageTimestamp': format_micro(self._env.clock.wall()),
        }  # fmt: skip
        line = orjson.dumps(event) + b'\n'
        try:
            if self._file is None:
                self._file = self._env.disk.open_append(self._path)
            self._append(self._file, line)
            if self._file.size > self._rotation.size_bytes:
                self._rotate()
        except OSError as e:
            log.error('audit event was not written', err=str(e))

    def _append(self, file: AppendFile, line: bytes) -> None:
        before = file.size
        try:
            file.append(b'\n' + line if self._torn else line)
            self._torn = False
        except OSError:
            self._torn = self._torn or file.size != before
            raise

    def _rotate(self) -> None:
        self.close()
        name = self._path.name
        names = [self._path, *(self._path.with_name(f'{name}.{n}') for n in range(1, self._rotation.backups + 1))]
        for new, old in zip(names[:0:-1], names[-2::-1], strict=True):
            if self._env.disk.exists(old):
                self._env.disk.rename(old, new)
        if not self._rotation.backups:
            self._env.disk.remove(self._path)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def audit_log(policy_file: Path | None, path: Path | None, env: Env, rotation: Rotation) -> AuditLog | None:
    """None without a path. Without a policy all requests are kept. Raises BadPolicy."""
    if path is None:
        return None
    return AuditLog(Policy.load(policy_file, env) if policy_file is not None else EVERYTHING, path, env, rotation)
