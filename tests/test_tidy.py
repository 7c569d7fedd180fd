"""House rules as tests: who may import whom, nothing taken from the air, sizes that only shrink.

Each rule is a function over source text, so that the rules themselves are tested below with text that breaks them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ('kcore', 'kstore', 'kclient', 'kapi', 'kcontrol', 'knode', 'kctl')

MAY_IMPORT: Mapping[str, set[str]] = {
    'kcore': set(),
    'kstore': {'kcore'},
    'kclient': {'kcore'},
    'kapi': {'kcore'},
    'kcontrol': {'kclient', 'kcore'},
    'knode': {'kclient', 'kcore'},
    'kctl': set(PACKAGES),
}
DOORS = {('kapi.storage.kstore', 'kstore')}
"""The single door from the API server into the store."""

AMBIENT = {
    'time.time', 'time.monotonic', 'time.perf_counter', 'time.sleep', 'time.time_ns', 'time.monotonic_ns',
    'random.random', 'random.randint', 'random.choice', 'random.uniform', 'random.shuffle', 'random.Random',
    'random.sample', 'uuid.uuid4', 'uuid.uuid1', 'os.urandom', 'secrets.token_bytes', 'secrets.token_hex',
    'secrets.token_urlsafe', 'secrets.choice', 'datetime.now', 'datetime.utcnow', 'datetime.datetime.now',
    'datetime.datetime.utcnow', 'date.today', 'open', 'io.open',
}  # fmt: skip
AMBIENT_FILES = {'read_text', 'write_text', 'read_bytes', 'write_bytes'}
MAY_BE_AMBIENT = ('kcore.env', 'kcore.sim')
AMBIENT_EXCEPTIONS: Mapping[str, str] = {
    'knode.runtime.shim': 'the pause process outlives the agent and starts in milliseconds: it has no Env',
    'knode.images': 'what runs inside containers is a program like any other',
    'kctl.verbs.token': 'a join token must be secret, so no seed may bring it back',
}
PURE = (
    'kstore.raft', 'kstore.mvcc', 'kcore.meta', 'kclient.reflector', 'kcontrol.scheduler.plugins',
    'kapi.registry.strategy', 'kapi.registry.kind', 'kapi.kinds',
)  # fmt: skip
IO_MODULES = {'asyncio', 'socket', 'subprocess', 'threading', 'aiohttp', 'selectors', 'ssl'}
LOG_METHODS = {'debug', 'info', 'warning', 'error', 'exception'}
FUNCTION_LINES_MAX = 70
RATCHET = ROOT / 'tests' / 'tidy_long_functions.txt'


@dataclass(frozen=True)
class Module:
    name: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.name.partition('.')[0]


def parse(name: str, text: str) -> Module:
    return Module(name, ast.parse(text))


def files() -> Iterator[tuple[str, Path]]:
    """Module name and file. They are parsed by the tests: each worker collects all tests and runs a part of them."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob('*.py')):
            parts = list(path.relative_to(ROOT).with_suffix('').parts)
            if parts[-1] == '__init__':
                parts.pop()
            yield '.'.join(parts), path


ALL = dict(files())
pytestmark = pytest.mark.xdist_group('tidy')


@cache
def module(name: str) -> Module:
    return parse(name, ALL[name].read_text())


def imports(m: Module) -> Iterator[str]:
    for node in ast.walk(m.tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield m.package


def layer_breaks(m: Module) -> Iterator[str]:
    allowed = MAY_IMPORT[m.package] | {m.package}
    for target in imports(m):
        package = target.partition('.')[0]
        door = any(m.name == source and package == into for source, into in DOORS)
        if package in PACKAGES and package not in allowed and not door:
            yield f'{m.name} imports {target}'


def ambient_calls(m: Module) -> Iterator[str]:
    if m.name.startswith(MAY_BE_AMBIENT) or m.name.startswith(tuple(AMBIENT_EXCEPTIONS)):
        return
    for node in ast.walk(m.tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        file_call = isinstance(node.func, ast.Attribute) and node.func.attr in AMBIENT_FILES
        file_call = file_call and 'resources.files(' not in called  # data shipped inside a package is code
        if called in AMBIENT or file_call:
            yield f'{m.name}:{node.lineno} calls {called}'


def impure(m: Module) -> Iterator[str]:
    plan = m.name.startswith('kcontrol.controllers.') and m.name.endswith('.plan')
    if not plan and not any(m.name == p or m.name.startswith(p + '.') for p in PURE):
        return
    for target in imports(m):
        if target.partition('.')[0] in IO_MODULES:
            yield f'{m.name} imports {target}'
    for node in ast.walk(m.tree):
        if isinstance(node, ast.AsyncFunctionDef):
            yield f'{m.name}:{node.lineno} has async def {node.name}'


def loose_tasks(m: Module) -> Iterator[str]:
    if m.name == 'kcore.tasks' or m.name.startswith('kcore.sim'):
        return
    for node in ast.walk(m.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called = ast.unparse(node.func)
            if called in {'asyncio.create_task', 'asyncio.ensure_future', 'loop.create_task', 'self._loop.create_task'}:
                yield f'{m.name}:{node.lineno} calls {called}'


def formatted_events(m: Module) -> Iterator[str]:
    for node in ast.walk(m.tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
            continue
        logger = ast.unparse(node.func.value)
        is_log = node.func.attr in LOG_METHODS and logger in {'log', 'self._log', 'self.log', 'logger'}
        if is_log and not isinstance(node.args[0], ast.Constant):
            yield f'{m.name}:{node.lineno} logs an event that is not a constant'


def long_functions(m: Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(m.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            start = node.body[1].lineno if docstring and len(node.body) > 1 else first.lineno
            lines = (node.end_lineno or start) - start + 1
            if lines > FUNCTION_LINES_MAX:
                yield f'{m.name}.{node.name}', lines


@pytest.mark.parametrize('name', ALL)
def test_a_module_keeps_the_house_rules(name: str) -> None:
    m = module(name)
    broken = [*layer_breaks(m), *ambient_calls(m), *impure(m), *loose_tasks(m), *formatted_events(m)]
    assert not broken
    assert ast.get_docstring(m.tree), f'{m.name} does not say what it is'


def test_functions_do_not_grow() -> None:
    listed = dict(line.rsplit(' ', 1) for line in RATCHET.read_text().splitlines() if line and line[0] != '#')
    ratchet = {name: int(lines) for name, lines in listed.items()}
    found = {name: lines for m in map(module, ALL) for name, lines in long_functions(m)}
    grown = {name: lines for name, lines in found.items() if lines > ratchet.get(name, 0)}
    assert not grown, f'longer than {FUNCTION_LINES_MAX} lines, and than the ratchet allows'
    assert not set(ratchet) - set(found), 'these are short now: take them off the ratchet'


BROKEN: tuple[tuple[str, str, object], ...] = (
    ('kapi.app', 'from kstore.client import StoreClient', layer_breaks),
    ('kcore.x', 'import kstore', layer_breaks),
    ('knode.x', 'import kcontrol.manager', layer_breaks),
    ('kapi.x', 'import time\ntime.monotonic()', ambient_calls),
    ('kapi.x', 'from pathlib import Path\nPath("x").read_text()', ambient_calls),
    ('kstore.raft.core', 'import asyncio', impure),
    ('kcontrol.controllers.job.plan', 'async def f(): ...', impure),
    ('kapi.x', 'import asyncio\nasyncio.create_task(x)', loose_tasks),
    ('kapi.x', 'log.info(f"made {n}")', formatted_events),
)


@pytest.mark.parametrize(('name', 'text', 'rule'), BROKEN)
def test_a_rule_finds_what_breaks_it(name: str, text: str, rule: object) -> None:
    assert list(rule(parse(name, text)))  # type: ignore[operator]


def test_the_single_door_into_the_store_is_open() -> None:
    assert not list(layer_breaks(parse('kapi.storage.kstore', 'from kstore.client import StoreClient')))


def test_a_long_function_is_found() -> None:
    body = 'def f():\n' + '    x = 1\n' * (FUNCTION_LINES_MAX + 1)
    assert [name for name, _ in long_functions(parse('kapi.x', body))] == ['kapi.x.f']
