"""Manifests: files, directories, `-`; several documents each, Lists unpacked; errors name file, line and column."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from kcore.env import Env
from kctl.verbs.lib.errors import CliError, Refused

if TYPE_CHECKING:
    from kctl.verbs.lib.discovery import Known
    from kctl.verbs.lib.session import Session

Obj = dict[str, Any]

SUFFIXES = ('.yaml', '.yml', '.json')
MANIFEST_BYTES_MAX = 64 * 1024 * 1024
"""A larger file or stream is refused rather than read into memory."""

FILES = click.option('-f', '--filename', 'files', multiple=True, help='File, directory or - (standard input).')
RECURSIVE = click.option('-R', '--recursive', is_flag=True, help='Read directories within directories too.')

_Loader = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object and where it was read."""

    obj: Obj
    source: str

    @property
    def name(self) -> str:
        return str((self.obj.get('metadata') or {}).get('name') or '')


def read(files: Iterable[str], *, recursive: bool = False) -> list[Manifest]:
    """All objects in all files. Raises CliError."""
    found = [m for source, text in _sources(files, recursive) for m in parse(text, source)]
    if not found:
        raise CliError('no objects passed to apply' if files else 'must specify one of -f and -k')
    return found


def _sources(files: Iterable[str], recursive: bool) -> Iterator[tuple[str, bytes]]:
    disk = Env.real().disk
    for name in files:
        if name == '-':
            yield 'STDIN', _bounded('STDIN', sys.stdin.buffer.read(MANIFEST_BYTES_MAX + 1))
            continue
        path = Path(name)
        if not path.exists():
            raise CliError(f'the path "{name}" does not exist')
        found = _below(path, recursive) if path.is_dir() else [path]
        for file in found:
            try:
                if file.stat().st_size > MANIFEST_BYTES_MAX:
                    raise CliError(f'{file}: is larger than {MANIFEST_BYTES_MAX} bytes')
                yield str(file), disk.read(file)
            except OSError as e:
                raise CliError(f'{file}: {e.strerror or e}') from None


def _below(directory: Path, recursive: bool) -> list[Path]:
    entries = directory.rglob('*') if recursive else directory.iterdir()
    return sorted(p for p in entries if p.suffix in SUFFIXES and p.is_file())


def _bounded(source: str, data: bytes) -> bytes:
    if len(data) > MANIFEST_BYTES_MAX:
        raise CliError(f'{source}: is larger than {MANIFEST_BYTES_MAX} bytes')
    return data


def parse(text: bytes, source: str) -> Iterator[Manifest]:
    """Documents of one stream; empty ones are skipped, Lists unpacked. Raises CliError with file, line and column."""
    try:
        documents = list(yaml.load_all(text, _Loader))
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        where = f'{source}:{mark.line + 1}:{mark.column + 1}' if mark else source
        raise CliError(f'{where}: {e.problem or e.context}') from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as e:
        raise CliError(f'{source}: {" ".join(str(e).split())}') from None
    except RecursionError:
        raise CliError(f'{source}: is nested too deeply') from None
    for document in documents:
        if document is not None:
            yield from _objects(document, source)


def _objects(document: Any, source: str) -> Iterator[Manifest]:
    if not isinstance(document, dict):
        raise CliError(f'{source}: an object is expected, not {type(document).__name__}')
    for field in ('apiVersion', 'kind'):
        if not isinstance(document.get(field), str) or not document[field]:
            raise CliError(f'{source}: an object without {field}')
    meta = document.get('metadata')
    if meta is not None and not isinstance(meta, dict):
        raise CliError(f'{source}: metadata: a mapping is expected, not {type(meta).__name__}')
    if document['kind'].endswith('List') and isinstance(document.get('items'), list):
        for item in document['items']:
            yield from _objects(item, source)
        return
    yield Manifest(document, source)


def resolve(session: Session, manifest: Manifest) -> tuple[Known, Obj]:
    """The resource a manifest belongs to, and the object with its namespace filled in. Raises CliError."""
    obj = _jsonable(manifest.obj, manifest.source)
    version, kind = obj['apiVersion'], obj['kind']
    known = session.catalog.find_kind(version, kind)
    meta = obj.setdefault('metadata', {}) or {}
    obj['metadata'] = meta
    if known is None:
        raise CliError(
            f'resource mapping not found for name: "{manifest.name}" namespace: "{meta.get("namespace") or ""}" '
            f'from "{manifest.source}": no matches for kind "{kind}" in version "{version}"'
        )
    if known.resource.namespaced:
        given = meta.get('namespace')
        asked = session.flags.namespace
        if given and asked and given != asked:
            raise CliError(
                f'the namespace from the provided object "{given}" does not match the namespace "{asked}". '
                f"You must pass '--namespace={given}' to perform this operation."
            )
        meta['namespace'] = given or session.namespace
    return known, obj


def _jsonable(value: Any, source: str) -> Any:
    """YAML knows dates and other keys than text; JSON does not."""
    if isinstance(value, dict):
        return {_key(k): _jsonable(v, source) for k, v in value.items()}
    if isinstance(value, list):
        return [_jsonable(v, source) for v in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, bytes):
        raise CliError(f'{source}: binary values must be base64 text')
    return value.isoformat().replace('+00:00', 'Z') if hasattr(value, 'isoformat') else str(value)


def _key(key: Any) -> str:
    if isinstance(key, bool):
        return 'true' if key else 'false'
    return str(key)


def while_(doing: str, manifest: Manifest, error: Refused) -> Refused:
    """The same refusal, naming what was done with which file."""
    return Refused(error.status, f'error when {doing} "{manifest.source}"')
