"""A command's view of the cluster: who we are, where, in which namespace; made from flags, late and once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kctl.verbs.lib.errors import CliError

if TYPE_CHECKING:
    from kclient.kubeconfig import ClientConfig
    from kctl.verbs.lib.discovery import Catalog, Known
    from kctl.verbs.lib.http import Http

Obj = dict[str, Any]

VERSION = '1.33.1'


class Verb(click.Command):
    """A command whose switches may also be written `--wait=false`, as those of kubectl."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        switches = {
            name: (option.opts[-1], option.secondary_opts)
            for option in self.params
            if isinstance(option, click.Option) and option.is_flag
            for name in option.opts
        }
        kept: list[str] = []
        for i, arg in enumerate(args):
            if arg == '--':
                kept += args[i:]
                break
            name, equals, value = arg.partition('=')
            if not equals or name not in switches or value not in ('true', 'false'):
                kept.append(arg)
            elif value == 'true':
                kept.append(name)
            else:
                kept += switches[name][1][:1]
        return super().parse_args(ctx, kept)


@dataclass(slots=True)
class Flags:
    """Global flags; None is "not given"."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None
    as_user: str | None = None
    as_group: tuple[str, ...] = ()

    def over(self, outer: Flags) -> Flags:
        """These, completed by those given before the verb."""
        return Flags(
            self.kubeconfig or outer.kubeconfig,
            self.context or outer.context,
            self.namespace or outer.namespace,
            self.as_user or outer.as_user,
            self.as_group or outer.as_group,
        )


@dataclass
class Session:
    flags: Flags = field(default_factory=Flags)

    @cached_property
    def config(self) -> ClientConfig:
        from kclient.errors import ConfigError  # noqa: PLC0415 — only commands that talk to a server pay for it
        from kclient.kubeconfig import load  # noqa: PLC0415
        from kcore.env import Env  # noqa: PLC0415

        try:
            return load(self._kubeconfig(), Env.real(), self.flags.context)
        except ConfigError as e:
            raise CliError(str(e)) from None

    def close(self) -> None:
        if 'http' in self.__dict__:
            self.http.close()

    def _kubeconfig(self) -> Path:
        """--kubeconfig, $KUBECONFIG, ./.kubeling/kubeconfig, ~/.kube/config."""
        named = self.flags.kubeconfig or os.environ.get('KUBECONFIG', '').split(os.pathsep)[0]
        if named:
            return Path(named)
        candidates = (Path('.kubeling/kubeconfig'), Path.home() / '.kube' / 'config')
        for path in candidates:
            if path.exists():
                return path
        raise CliError(
            'no kubeconfig: neither --kubeconfig nor KUBECONFIG is set, and there is no '
            + ' or '.join(str(c) for c in candidates)
            + ' (start a cluster with `kctl cluster up`)'
        )

    @cached_property
    def http(self) -> Http:
        from kctl.verbs.lib.http import Http  # noqa: PLC0415

        headers = {'User-Agent': f'kctl/{VERSION}'}
        if self.flags.as_user:
            headers['Impersonate-User'] = self.flags.as_user
        if self.flags.as_group:
            headers['Impersonate-Group'] = ','.join(self.flags.as_group)
        return Http(self.config, headers)

    @cached_property
    def catalog(self) -> Catalog:
        from kctl.verbs.lib.discovery import discover  # noqa: PLC0415

        return discover(self.http)

    @property
    def namespace(self) -> str:
        return self.flags.namespace or self.config.namespace

    def namespace_for(self, known: Known) -> str | None:
        return self.namespace if known.resource.namespaced else None

    def object(self, known: Known, name: str) -> Obj:
        """One object in the session's namespace. Raises Refused (NotFound)."""
        return self.http.get(known.resource.path(self.namespace_for(known), name))

    def items(self, known: Known, *, all_namespaces: bool = False, labels: str = '', fields: str = '') -> list[Obj]:
        """A list, with apiVersion and kind in each item."""
        where = None if all_namespaces else self.namespace_for(known)
        body = self.http.get(known.resource.path(where), {'labelSelector': labels, 'fieldSelector': fields})
        items: list[Obj] = body.get('items') or []
        return [{'apiVersion': known.resource.api_version, 'kind': known.resource.kind, **i} for i in items]


def with_session(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """The global flags on a verb (they may also stand before it); the command gets a Session first."""

    @click.option('--kubeconfig', help='Path to the kubeconfig file.')
    @click.option('--context', help='Name of the kubeconfig context to use.')
    @click.option('-n', '--namespace', help='Namespace of this request.')
    @click.option('--as', 'as_user', help='User to impersonate.')
    @click.option('--as-group', multiple=True, help='Group to impersonate; may be repeated.')
    @click.pass_context
    @wraps(command)
    def run(context: click.Context, /, **kwargs: Any) -> int | None:
        names = ('kubeconfig', 'context', 'namespace', 'as_user', 'as_group')
        inner = Flags(*(kwargs.pop(n) for n in names))
        outer = context.obj if isinstance(context.obj, Flags) else Flags()
        session = Session(inner.over(outer))
        try:
            return command(session, **kwargs)
        finally:
            session.close()

    return run


def say(text: str) -> None:
    """One line on standard output, at once."""
    print(text, flush=True)


def warn(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
