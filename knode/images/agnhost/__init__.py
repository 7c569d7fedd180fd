"""Stand-in for the `agnhost` test image: the subcommands that people's manifests and upstream's tests use most.

Each subcommand is a function `(arguments) -> exit code` of a module of its own, imported when it is asked for: a
container that starts in milliseconds makes tests of timing honest. Source: test/images/agnhost.
"""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Mapping

from knode.images.ending import end_at

COMMANDS: Mapping[str, str] = {
    'connect': 'connect:connect',
    'dns-server-list': 'files:dns_server_list',
    'dns-suffix': 'files:dns_suffix',
    'entrypoint-tester': 'files:entrypoint_tester',
    'etc-hosts': 'files:etc_hosts',
    'grpc-health-checking': 'grpc:serve',
    'guestbook': 'guestbook:guestbook',
    'inclusterclient': 'connect:in_cluster_client',
    'liveness': 'http:liveness',
    'logs-generator': 'files:logs_generator',
    'mounttest': 'files:mount_test',
    'netexec': 'netexec:netexec',
    'pause': 'files:pause',
    'porter': 'http:porter',
    'serve-hostname': 'http:serve_hostname',
    'test-webserver': 'netexec:netexec',
}
"""Subcommand → module:function."""


def main() -> int:
    command, *args = sys.argv[1:] or ['pause']
    if command not in COMMANDS:
        print(f'agnhost: unknown command {command!r}; here are {", ".join(COMMANDS)}', file=sys.stderr)
        return 1
    end_at(signal.SIGTERM)
    module, _, function = COMMANDS[command].partition(':')
    code = getattr(importlib.import_module(f'{__name__}.{module}'), function)(args)
    return int(code)


def flag(args: list[str], name: str, default: str) -> str:
    """The last `--name=value` or `--name value`."""
    return next(reversed(flags(args, name)), default)


def flags(args: list[str], name: str) -> list[str]:
    """Every value given for a flag."""
    found = []
    for i, a in enumerate(args):
        key, separator, value = a.lstrip('-').partition('=')
        if a.startswith('--') and key == name:
            found.append(value if separator else args[i + 1] if i + 1 < len(args) else '')
    return found
