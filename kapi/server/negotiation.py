"""Which form the answer takes: JSON or YAML; the object, a Table, or only its metadata. Pure.

Source: apiserver pkg/endpoints/handlers/negotiation; texts of 406 and 415 from negotiation/errors.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from kapi.errors import NotAcceptable, UnsupportedMediaType

JSON = 'application/json'
YAML = 'application/yaml'
PROTOBUF = 'application/vnd.kubernetes.protobuf'
ACCEPTED = f'{JSON}, {YAML}, {PROTOBUF}'
STREAMED = f'{JSON};stream=watch, {PROTOBUF};stream=watch'
"""What upstream says it accepts for a watch; YAML has no frames."""
ACCEPT_CHARS_MAX = 4_096
"""Longer Accept headers are refused unread."""

PARTIAL = 'PartialObjectMetadata'
PARTIAL_LIST = 'PartialObjectMetadataList'


@dataclass(frozen=True, slots=True)
class Clause:
    media: str
    params: tuple[tuple[str, str], ...]

    def param(self, name: str) -> str:
        return next((v for k, v in self.params if k == name), '')


@dataclass(frozen=True, slots=True)
class Form:
    """How to answer. `transform` is empty, Table, PartialObjectMetadata or PartialObjectMetadataList."""

    media: str = JSON
    transform: str = ''
    version: str = 'v1'

    @property
    def content_type(self) -> str:
        return self.media


PLAIN = Form()


@lru_cache(maxsize=256)
def clauses(accept: str) -> tuple[Clause, ...]:
    """The Accept header's alternatives, best first."""
    found: list[tuple[float, Clause]] = []
    for part in accept[:ACCEPT_CHARS_MAX].split(','):
        media, *rest = (p.strip() for p in part.split(';'))
        if not media:
            continue
        params = tuple((k.strip(), v.strip()) for k, _, v in (p.partition('=') for p in rest))
        q = dict(params).get('q', '1')
        try:
            weight = float(q)
        except ValueError:
            weight = 1.0
        found.append((-weight, Clause(media.lower(), params)))
    found.sort(key=lambda pair: pair[0])
    return tuple(c for w, c in found if w < 0)


@lru_cache(maxsize=256)
def negotiate(accept: str, *, watch: bool = False) -> Form:
    """The first alternative that we can serve. Raises NotAcceptable."""
    if not accept or accept == '*/*':
        return PLAIN
    for clause in clauses(accept):
        form = _form(clause)
        if form is not None and not (watch and form.media == YAML):
            return form
    raise NotAcceptable(f'only the following media types are accepted: {STREAMED if watch else ACCEPTED}')


def _form(clause: Clause) -> Form | None:
    if clause.media in {JSON, 'application/*', '*/*'}:
        media = JSON
    elif clause.media == YAML:
        media = YAML
    else:
        return None
    transform, group, version = clause.param('as'), clause.param('g'), clause.param('v')
    if not transform:
        return Form(media) if not group else None
    if group != 'meta.k8s.io' or version not in {'v1', 'v1beta1'}:
        return None
    if transform not in {'Table', PARTIAL, PARTIAL_LIST}:
        return None
    return Form(media, transform, version)


def body_media(content_type: str) -> str:
    """The media type of a request body; none given means JSON. Raises UnsupportedMediaType."""
    media = content_type.partition(';')[0].strip().lower()
    if not media:
        return JSON
    if media in {JSON, YAML, PROTOBUF}:
        return media
    raise UnsupportedMediaType(
        f'the body of the request was in an unknown format - accepted media types include: {ACCEPTED}'
    )
