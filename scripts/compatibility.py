"""Run every kubectl verb, Python clients' everyday calls and kopf's examples; write `docs/compatibility.md`.

`python scripts/compatibility.py [--kubeconfig F] [--versions 1.27,1.33] [--only WORD] [--write]`. Without a kubeconfig
a cluster is started and stopped again. Each check is a small shell script; `$K` is the kubectl under test, working in
a namespace of its own. A check passes when the script ends with 0.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import compatibility_kopf as kopf
from compatibility_checks import CLIENTS, KNOWN_MISSING, SETUP, VERBS
from compatibility_streams import STREAM_CLIENTS, STREAM_VERBS

VERSIONS = ('1.27', '1.28', '1.29', '1.30', '1.31', '1.32', '1.33')
TIMEOUT_S = 120
WORKERS = 4
REPORT = Path(__file__).resolve().parent.parent / 'docs' / 'compatibility.md'


@dataclass(frozen=True)
class Outcome:
    check: str
    subject: str
    """kubectl version or client library."""
    passed: bool | None
    """None: not run."""
    said: str


Found = tuple[list[Outcome], list[Outcome], list[Outcome]]
"""Of kubectl's verbs, of the clients' calls, of kopf's examples."""


def binary(version: str) -> str | None:
    """A versioned kubectl: on the PATH as kubectl.1.32, or beside the dispatcher that a `kubectl` may be."""
    found = shutil.which(f'kubectl.{version}')
    if found:
        return found
    plain = shutil.which('kubectl')
    beside = Path(plain).resolve().parent / f'kubectl.{version}' if plain else None
    return str(beside) if beside is not None and beside.exists() else None


def shell(script: str, env: dict[str, str]) -> tuple[bool, str]:
    try:
        done = subprocess.run(
            ['bash', '-euo', 'pipefail', '-c', script], env=env, capture_output=True, text=True, timeout=TIMEOUT_S,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False, f'no end within {TIMEOUT_S} s'
    return done.returncode == 0, ' '.join((done.stderr or done.stdout).split())[-300:]


def run_kubectl(version: str, kubeconfig: str, only: str) -> list[Outcome]:
    """All verbs with one kubectl, in a namespace that is deleted afterwards."""
    program = binary(version)
    assert program is not None
    namespace = f'compat-{version.replace(".", "-")}'
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, 'KUBECONFIG': kubeconfig, 'HOME': home, 'NS': namespace, 'KUBECTL': program,
               'K': f'{program} -n {namespace}', 'MINOR': version.partition('.')[2], 'EDITOR': 'true'}  # fmt: skip
        ok, said = shell(SETUP, env)
        if not ok:
            return [Outcome('setup', version, passed=False, said=said)]
        found = []
        for name, script in (VERBS | STREAM_VERBS).items():
            if only in name:
                found.append(Outcome(name, version, *shell(f'cd {home}\n{script}', env)))
        shell('$KUBECTL delete namespace $NS --wait=false', env)
        return found


def run_client(name: str, kubeconfig: str) -> list[Outcome]:
    env = {**os.environ, 'KUBECONFIG': kubeconfig, 'PYTHON': sys.executable}
    checks = CLIENTS[name] | STREAM_CLIENTS.get(name, {})
    return [Outcome(check, name, *shell(f'$PYTHON - <<"END"\n{code}\nEND', env)) for check, code in checks.items()]


def run_example(name: str, script: str, kubeconfig: str, where: tuple[Path, Path]) -> Outcome:
    """One of kopf's examples, in a namespace that is deleted afterwards."""
    program = next(p for p in map(binary, reversed(VERSIONS)) if p)
    namespace = f'compat-kopf-{name.partition("-")[0]}'
    examples, libraries = where
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, 'KUBECONFIG': kubeconfig, 'HOME': home, 'NS': namespace, 'KUBECTL': program,
               'K': f'{program} -n {namespace}', 'PYTHON': sys.executable, 'PORT': str(port),
               'EXAMPLES': str(examples), 'LIBRARIES': str(libraries)}  # fmt: skip
        found = Outcome(name, 'kopf', *shell(f'cd {home}\n{kopf.NAMESPACE}\n{kopf.PRELUDE}\n{script}', env))
        shell('$KUBECTL delete namespace $NS --wait=false', env)
        return found


def run_examples(kubeconfig: str, only: str) -> list[Outcome]:
    together = {n: s for n, s in kopf.TOGETHER.items() if only in n}
    alone = {n: s for n, s in kopf.ALONE.items() if only in n}
    if not (together or alone):
        return []
    with kopf.fetched() as (examples, libraries, why):
        if examples is None:
            return [Outcome(name, 'kopf', None, why) for name in (*together, *alone)]
        program = next(p for p in map(binary, reversed(VERSIONS)) if p)
        env = {**os.environ, 'KUBECONFIG': kubeconfig, 'KUBECTL': program, 'EXAMPLES': str(examples)}
        ok, said = shell(kopf.SETUP, env)
        if not ok:
            return [Outcome('setup', 'kopf', passed=False, said=said)]

        def run(item: tuple[str, str]) -> Outcome:
            return run_example(*item, kubeconfig, (examples, libraries))

        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            found = [*pool.map(run, together.items()), *map(run, alone.items())]
        left = sorted(p.name for p in examples.iterdir() if p.is_dir() and p.name not in kopf.TOGETHER | kopf.ALONE)
        return [*found, *(Outcome(name, 'kopf', None, 'no check is written for it') for name in left if only in name)]


def table(outcomes: Sequence[Outcome], subjects: Sequence[str]) -> Iterator[str]:
    yield '| check | ' + ' | '.join(subjects) + ' |'
    yield '|---' * (len(subjects) + 1) + '|'
    cells = {(o.check, o.subject): o for o in outcomes}
    for check in dict.fromkeys(o.check for o in outcomes):
        marks = ('✓' if cells[check, s].passed else '✗' if (check, s) in cells else '–' for s in subjects)
        yield f'| {check} | ' + ' | '.join(marks) + ' |'


def mark(outcome: Outcome) -> str:
    return {True: '✓', False: '✗', None: f'not run: {outcome.said}'}[outcome.passed]


def report(found: Found, versions: Sequence[str]) -> str:
    verbs, clients, examples = found
    lines = [
        '# Compatibility', '',
        'Generated by `python scripts/compatibility.py --write` against a running cluster; never edited by hand.', '',
        '## kubectl', '', *table(verbs, versions), '', '## Python clients', '',
    ]  # fmt: skip
    lines += ['| client | check | |', '|---|---|---|']
    lines += [f'| {o.subject} | {o.check} | {mark(o)} |' for o in clients]
    lines += ['', "## kopf's own example operators", '',
              'Run from its source distribution with `kopf run`, judged by what their handlers did: log lines, status,',
              'events, children, refusals.', '', '| example | |', '|---|---|']  # fmt: skip
    lines += [f'| {o.check} | {mark(o)} |' for o in examples]
    failed = [o for o in (*verbs, *clients, *examples) if o.passed is False]
    if failed:
        lines += ['', '## What fails, and why', '']
        for check in dict.fromkeys(o.check for o in failed):
            who = ', '.join(o.subject for o in failed if o.check == check)
            lines.append(f'- **{check}** ({who}): {KNOWN_MISSING.get(check, "a defect")}')
    return '\n'.join(lines) + '\n'


@contextmanager
def cluster() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as data:
        command = [sys.executable, '-m', 'kctl', 'cluster']
        subprocess.run([*command, 'up', '--data-dir', data], check=True)
        try:
            yield f'{data}/kubeconfig'
        finally:
            subprocess.run([*command, 'down', '--data-dir', data], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kubeconfig', help='of a running cluster; one is started when missing')
    parser.add_argument('--versions', default=','.join(VERSIONS))
    parser.add_argument('--only', default='', help='checks whose name contains this')
    parser.add_argument('--write', action='store_true', help='write docs/compatibility.md')
    given = parser.parse_args()
    if given.kubeconfig is None:
        with cluster() as kubeconfig:
            return check(kubeconfig, given)
    return check(given.kubeconfig, given)


def check(kubeconfig: str, given: argparse.Namespace) -> int:
    versions = [v for v in given.versions.split(',') if v and binary(v)]
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        verbs = [o for os_ in pool.map(lambda v: run_kubectl(v, kubeconfig, given.only), versions) for o in os_]
        names = [] if given.only else list(CLIENTS)
        clients = [o for found in pool.map(lambda n: run_client(n, kubeconfig), names) for o in found]
    examples = run_examples(kubeconfig, given.only)
    outcomes = (*verbs, *clients, *examples)
    for outcome in outcomes:
        if not outcome.passed:
            how = 'FAIL' if outcome.passed is False else 'SKIP'
            print(f'{how} {outcome.subject} {outcome.check}: {outcome.said}')
    print(f'{sum(o.passed is True for o in outcomes)} of {len(outcomes)} passed')
    if given.write:
        REPORT.write_text(report((verbs, clients, examples), versions))
    return 0


if __name__ == '__main__':
    sys.exit(main())
