"""YAML of a request as JSON-like values, put together from the parser's events: no recursion, and a bound on each step.

PyYAML's own composer is recursive C, which a deeply nested body brings down together with the process, and its
constructors take half a minute for the megabytes that a body may have.
Source of meaning: YAML 1.1 as PyYAML resolves it, but timestamps stay text. Texts of errors: sigs.k8s.io/yaml.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

from kapi.schemas.decode import MAX_DEPTH

NODES_MAX = 100_000
"""Values of a document with its aliases written out; beyond it is an alias bomb, or more than anybody writes."""

_TAG = 'tag:yaml.org,2002:'
_TEXT, _MERGE = f'{_TAG}str', f'{_TAG}merge'
_PLAIN = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != f'{_TAG}timestamp']
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_constructor = SafeConstructor()
_MAKE: dict[str, Callable[[yaml.ScalarNode], Any]] = {
    f'{_TAG}bool': _constructor.construct_yaml_bool,
    f'{_TAG}float': _constructor.construct_yaml_float,
    f'{_TAG}int': _constructor.construct_yaml_int,
    f'{_TAG}null': _constructor.construct_yaml_null,
}


class NotYaml(ValueError):
    """The text says where and why."""


@dataclass(slots=True)
class _Open:
    """A list or map that is being read."""

    value: list[Any] | dict[Any, Any]
    anchor: str | None
    nodes: int = 1
    depth: int = 1
    """Of what it holds so far, itself included."""
    key: Any = None
    keyed: bool = False
    """Of a map: `key` waits for its value."""
    merges: bool = False
    """The key is `<<`."""
    merged: list[dict[Any, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Closed:
    value: Any
    nodes: int
    depth: int


class _Document:
    """One document under way."""

    def __init__(self) -> None:
        self.root: Any = None
        self.repeated: list[str] = []
        self._open: list[_Open] = []
        self._anchors: dict[str, _Closed | None] = {}
        """None: not complete yet."""

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
            self._start(event)
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            self._end(event)
        elif isinstance(event, yaml.AliasEvent):
            found = self._anchors.get(event.anchor or '')
            if found is None:
                why = 'value contains itself' if event.anchor in self._anchors else 'is unknown'
                raise NotYaml(f"{_line(event)}: anchor '{event.anchor}' {why}")
            self._put(found, event)

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        text: str = event.value
        tag = event.tag
        if tag in {None, '!'}:
            tag = _resolved(text) if event.implicit[0] else _TEXT
        above = self._open[-1] if self._open else None
        if tag == _MERGE and above is not None and isinstance(above.value, dict) and not above.keyed:
            above.keyed = above.merges = True
            return
        closed = _Closed(text if tag == _TEXT else _made(tag, text, event), 1, 1)
        if event.anchor:
            self._anchors[event.anchor] = closed
        self._put(closed, event)

    def _start(self, event: yaml.CollectionStartEvent) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise NotYaml(f'exceeded max depth of {MAX_DEPTH}')
        value: list[Any] | dict[Any, Any] = [] if isinstance(event, yaml.SequenceStartEvent) else {}
        if event.tag not in {None, '!', f'{_TAG}seq', f'{_TAG}map'}:
            raise NotYaml(f'{_line(event)}: cannot make {event.tag}')
        if event.anchor:
            self._anchors[event.anchor] = None
        self._open.append(_Open(value, event.anchor))

    def _end(self, event: yaml.CollectionEndEvent) -> None:
        done = self._open.pop()
        if isinstance(done.value, dict):
            for other in done.merged:
                for key, value in other.items():
                    done.value.setdefault(key, value)
        closed = _Closed(done.value, done.nodes, done.depth)
        if done.anchor:
            self._anchors[done.anchor] = closed
        self._put(closed, event)

    def _put(self, item: _Closed, event: yaml.Event) -> None:
        if not self._open:
            self.root = item.value
            return
        above = self._open[-1]
        above.nodes += item.nodes
        above.depth = max(above.depth, item.depth + 1)
        if above.nodes > NODES_MAX:
            raise NotYaml('document contains excessive aliasing, or too many values')
        if len(self._open) + item.depth > MAX_DEPTH + 1:
            raise NotYaml(f'exceeded max depth of {MAX_DEPTH}')
        if isinstance(above.value, list):
            above.value.append(item.value)
        elif above.keyed:
            self._entry(above, item.value, event)
        else:
            if isinstance(item.value, dict | list):
                raise NotYaml(f'{_line(event)}: a key must be a scalar')
            if item.value in above.value:
                self.repeated.append(f'{_line(event)}: key "{item.value}" already set in map')
            above.key, above.keyed = item.value, True

    def _entry(self, above: _Open, value: Any, event: yaml.Event) -> None:
        assert isinstance(above.value, dict)
        above.keyed = False
        if not above.merges:
            above.value[above.key] = value
            return
        above.merges = False
        given = value if isinstance(value, list) else [value]
        if not all(isinstance(v, dict) for v in given):
            raise NotYaml(f'{_line(event)}: map merge requires map or sequence of maps as the value')
        above.merged += given


def _resolved(text: str) -> str:
    for tag, pattern in (*_PLAIN.get(text[:1], ()), *_PLAIN.get(None, ())):
        if pattern.match(text):
            return str(tag)
    return _TEXT


def _made(tag: str, text: str, event: yaml.Event) -> Any:
    make = _MAKE.get(tag)
    if make is None:
        if tag in {_MERGE, f'{_TAG}value'}:
            return text
        raise NotYaml(f'{_line(event)}: cannot make {tag}')
    try:
        return make(yaml.ScalarNode(tag, text))
    except (ValueError, KeyError, yaml.YAMLError):
        raise NotYaml(f'{_line(event)}: cannot make {tag} of {text[:100]!r}') from None


def _line(event: yaml.Event) -> str:
    return f'line {event.start_mark.line + 1 if event.start_mark else 0}'


def read(data: bytes) -> tuple[Any, list[str]]:
    """(Value of the one document, a line for each repeated key). Raises NotYaml."""
    document = _Document()
    documents = 0
    for event in _events(data):
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise NotYaml(f'{_line(event)}: expected a single document')
        document.take(event)
    return document.root, document.repeated


def _events(data: bytes) -> Iterator[yaml.Event]:
    try:
        yield from yaml.parse(data, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, UnicodeError) as e:
        raise NotYaml(' '.join(str(e).split())) from None
