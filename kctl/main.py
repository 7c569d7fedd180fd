"""`kctl`: kubectl's verbs for machines without kubectl, and `kctl cluster` for a cluster on this one.

Start-up is lazy: naming a verb imports that verb's module and nothing else, so that `kctl version` stays under 0.2 s.
A verb is one file in `kctl/verbs/` with a `command`, and one line in VERBS.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import click

from kctl.verbs.lib.errors import CliError, Refused, Unreachable
from kctl.verbs.lib.session import Flags

VERBS = {
    'agent': 'kctl.verbs.agent:command',
    'annotate': 'kctl.verbs.label:annotate',
    'api-resources': 'kctl.verbs.api_resources:command',
    'api-versions': 'kctl.verbs.api_resources:versions',
    'apply': 'kctl.verbs.apply:command',
    'cluster': 'kctl.verbs.cluster:command',
    'cluster-info': 'kctl.verbs.cluster_info:command',
    'cordon': 'kctl.verbs.cordon:cordon',
    'create': 'kctl.verbs.create:command',
    'delete': 'kctl.verbs.delete:command',
    'describe': 'kctl.verbs.describe:command',
    'exec': 'kctl.verbs.exec:command',
    'get': 'kctl.verbs.get:command',
    'label': 'kctl.verbs.label:command',
    'logs': 'kctl.verbs.logs:command',
    'patch': 'kctl.verbs.patch:command',
    'port-forward': 'kctl.verbs.port_forward:command',
    'rollout': 'kctl.verbs.rollout:command',
    'scale': 'kctl.verbs.scale:command',
    'token': 'kctl.verbs.token:command',
    'top': 'kctl.verbs.top:command',
    'uncordon': 'kctl.verbs.cordon:uncordon',
    'version': 'kctl.verbs.version:command',
    'wait': 'kctl.verbs.wait:command',
}
"""Verb → module:attribute."""


class Verbs(click.Group):
    """Imports a verb when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, where in VERBS.items() if find_spec(where.partition(':')[0]) is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module, _, attribute = VERBS.get(cmd_name, '').partition(':')
        if not module or find_spec(module) is None:
            return None
        command: click.Command = getattr(import_module(module), attribute)
        return command


@click.group(cls=Verbs, context_settings={'help_option_names': ['-h', '--help']})
@click.option('--kubeconfig', help='Path to the kubeconfig file.')
@click.option('--context', help='Name of the kubeconfig context to use.')
@click.option('-n', '--namespace', help='Namespace of this request.')
@click.option('--as', 'as_user', help='User to impersonate.')
@click.option('--as-group', multiple=True, help='Group to impersonate; may be repeated.')
@click.pass_context
def cli(ctx: click.Context, /, **flags: Any) -> None:
    """kctl controls a Kubeling cluster, or any other Kubernetes."""
    ctx.obj = Flags(**flags)


def main(args: Sequence[str] | None = None) -> int:
    """Run; returns the exit code. Whatever is wrong is said in one line on standard error."""
    try:
        outcome = cli.main(args=None if args is None else list(args), prog_name='kctl', standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as e:
        print(e.format_message())
        return 0
    except click.UsageError as e:
        name = e.ctx.command_path if e.ctx is not None else 'kctl'
        return _fail(f"error: {e.format_message()}\nSee '{name} --help' for usage.")
    except click.ClickException as e:
        return _fail(f'error: {e.format_message()}')
    except CliError as e:
        return _fail(f'error: {e}')
    except Refused as e:
        return _fail(e.text())
    except Unreachable as e:
        return _fail(str(e))
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        # The reader (head, less) has gone; the interpreter must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as e:
        # A fault of this program, or an answer that no server should give: never a traceback in a person's face.
        if os.environ.get('KCTL_TRACEBACK'):
            raise
        return _fail(f'error: unexpected {type(e).__name__}: {e} (KCTL_TRACEBACK=1 shows where)')
    return outcome if isinstance(outcome, int) else 0


def _fail(text: str) -> int:
    print(text.rstrip(), file=sys.stderr)
    return 1
