"""/healthz, /livez, /readyz: named checks, `ok` in plain text, every line with `?verbose`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from kapi.errors import UnknownPath
from kapi.registry.options import Query, flag
from kapi.server.context import Reply

Check = Callable[[], Awaitable[str]]
"""Empty when all is well, else what is wrong."""
TEXT = 'text/plain; charset=utf-8'


async def health(path: str, query: Query, checks: Mapping[str, Check]) -> Reply:
    """`/readyz` and single checks `/readyz/<name>`. Raises UnknownPath for a check there is not."""
    _, endpoint, *rest = path.split('/')
    wanted = checks
    if rest:
        if rest[0] not in checks:
            raise UnknownPath(path)
        wanted = {rest[0]: checks[rest[0]]}
    excluded = set(query.get('exclude', ()))
    lines: list[str] = []
    failed = False
    for name, check in wanted.items():
        if name in excluded:
            lines.append(f'[+]{name} excluded: ok')
            continue
        why = await check()
        failed = failed or bool(why)
        lines.append(f'[-]{name} failed: {why}' if why else f'[+]{name} ok')
    if unknown := sorted(excluded - set(wanted)):
        listed = ','.join(f'"{name}"' for name in unknown)
        lines.append(f'warn: some health checks cannot be excluded: no matches for {listed}')
    if failed:
        return Reply('\n'.join([*lines, f'{endpoint} check failed', '']).encode(), 500, TEXT)
    if 'verbose' in query and (flag(query, 'verbose') or query['verbose'][0] == ''):
        return Reply('\n'.join([*lines, f'{endpoint} check passed', '']).encode(), 200, TEXT)
    return Reply(b'ok', 200, TEXT)
