"""Lists: which version, which objects, which page. Answers come from the cache but for pages of an older version.

A continue token names the version and the last key of the page before. Source of rules and texts: apiserver
pkg/storage/continue.go, storage/etcd3/errors.go.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, replace

import orjson

from kapi.errors import BadRequest, Expired, TooLargeVersion
from kapi.registry.catalog import key_prefix
from kapi.registry.kind import Kind
from kapi.registry.options import ListOptions
from kapi.registry.selection import Selection, select
from kapi.storage.base import Compacted, FutureRevision
from kapi.storage.cache import Cache, ResourceCache
from kapi.storage.entries import Entry

PAGE_READ_FACTOR = 4
"""A page of an old version that is filtered by a selector reads this many times its limit at once."""
CONTINUE_CHARS_MAX = 4_096

EXPIRED_CONTINUE = (
    'The provided continue parameter is too old to display a consistent list result. You can start a new list without '
    'the continue parameter, or use the continue token in this response to retrieve the remainder of the results. '
    'Continuing with the provided token results in an inconsistent list - objects that were created, modified, or '
    'deleted between the time the first chunk was returned and now may show up in the list.'
)


@dataclass(frozen=True, slots=True)
class Listed:
    entries: Sequence[Entry]
    rv: int
    continue_: str = ''
    remaining: int | None = None


def scope_of(kind: Kind, namespace: str, name: str | None = None) -> tuple[str, str]:
    """(the resource's prefix, the prefix or key that a list or watch is about)."""
    prefix = key_prefix(kind.storage or kind.resource)
    scope = f'{prefix}{namespace}/' if namespace else prefix
    if name and (namespace or not kind.resource.namespaced):
        return prefix, scope + name
    return prefix, scope


async def list_objects(cache: Cache, kind: Kind, namespace: str, options: ListOptions) -> Listed:
    """Raises BadRequest (selector, token), Expired, TooLargeVersion."""
    selection = select(kind, options)
    prefix, scope = scope_of(kind, namespace)
    if kind.conversion is not None and selection.asks:
        await settle(cache, options)
        await kind.conversion.served(list(cache.resource(prefix).select(scope)))
    listed = await _listed(cache, (prefix, scope), selection, options)
    if kind.conversion is not None:
        listed = replace(listed, entries=await kind.conversion.served(listed.entries))
    return listed


async def _listed(cache: Cache, place: tuple[str, str], selection: Selection, options: ListOptions) -> Listed:
    prefix, scope = place
    if options.continue_:
        rv, after = _read_token(options.continue_, scope)
        if options.version:
            raise BadRequest('specifying resource version is not allowed when using continue')
        return await _page(cache, scope, selection, rv or await cache.fresh(), after=after, limit=options.limit)
    if options.match == 'Exact' or (options.limit and options.version and not options.match):
        # Without a match rule, a limited list at a given version is exact too, so that its pages agree.
        return await _exact(cache, scope, selection, options)
    await settle(cache, options)
    return _newest(cache.resource(prefix), scope, selection, cache.revision, options)


async def settle(cache: Cache, options: ListOptions) -> None:
    """Make the cache as new as the request demands. Raises TooLargeVersion, StorageUnavailable."""
    if not options.resource_version:
        await cache.fresh()
    elif options.version:
        try:
            await cache.reach(options.version)
        except FutureRevision as e:
            raise TooLargeVersion(options.version, e.current) from e


def _newest(resource: ResourceCache, scope: str, selection: Selection, rv: int, options: ListOptions) -> Listed:
    entries, matches = resource.entries, selection.matches
    if selection.name is not None and scope != resource.prefix:
        found = entries.get(scope + selection.name)
        keys = [found.key] if found is not None else []
    else:
        keys = resource.range(scope)
    # resourceVersion=0 asks for whatever is at hand, and gets all of it (client-go's first list relies on it).
    limit = options.limit if options.resource_version != '0' else 0
    if matches is None:
        taken = [entries[k] for k in (keys[:limit] if limit else keys)]
        more = len(keys) - len(taken)
        if not more:
            return Listed(taken, rv)
        return Listed(taken, rv, _token(rv, taken[-1].key, scope), more)
    if not limit:
        return Listed([e for k in keys if matches(e := entries[k])], rv)
    picked: list[Entry] = []
    for key in keys:
        if matches(entry := entries[key]):
            if len(picked) == limit:
                return Listed(picked, rv, _token(rv, picked[-1].key, scope))
            picked.append(entry)
    return Listed(picked, rv)


async def _exact(cache: Cache, scope: str, selection: Selection, options: ListOptions) -> Listed:
    try:
        return await _page(cache, scope, selection, options.version, after='', limit=options.limit)
    except FutureRevision as e:
        raise TooLargeVersion(options.version, e.current) from e


async def _page(cache: Cache, scope: str, selection: Selection, rv: int, *, after: str, limit: int) -> Listed:
    """A page at exactly `rv`, read from the store's history."""
    picked: list[Entry] = []
    step = limit if selection.matches is None else limit * PAGE_READ_FACTOR
    while True:
        try:
            page = await cache.storage.list(scope, rv=rv, limit=step, after=after)
        except Compacted as e:
            if after:
                raise Expired(EXPIRED_CONTINUE, continue_=_token(0, after, scope)) from e
            raise Expired('The resourceVersion for the provided list is too old.') from e
        for i, item in enumerate(page.items):
            entry = Entry(item.key, item.value, item.rv)
            after = item.key
            if selection.matches is not None and not selection.matches(entry):
                continue
            picked.append(entry)
            if limit and len(picked) == limit:
                left = len(page.items) - i - 1 + page.remaining
                if not left:
                    return Listed(picked, rv)
                remaining = left if selection.matches is None else None
                return Listed(picked, rv, _token(rv, after, scope), remaining)
        if not page.remaining:
            return Listed(picked, rv)


def _token(rv: int, after: str, scope: str) -> str:
    """rv 0 means: go on at whatever is newest."""
    body = orjson.dumps({'v': 'meta.k8s.io/v1', 'rv': rv, 'start': after, 'scope': scope})
    return base64.urlsafe_b64encode(body).rstrip(b'=').decode()


def _read_token(token: str, scope: str) -> tuple[int, str]:
    try:
        if len(token) > CONTINUE_CHARS_MAX:
            raise ValueError
        found = orjson.loads(base64.urlsafe_b64decode(token + '=' * (-len(token) % 4)))
        rv, after = found['rv'], found['start']
        if not isinstance(rv, int) or rv < 0 or not isinstance(after, str) or found['scope'] != scope:
            raise ValueError
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise BadRequest('invalid continue token: it belongs to another request or is damaged') from None
    if not after.startswith(scope):
        raise BadRequest('invalid continue token: it lies outside of the list')
    return rv, after
