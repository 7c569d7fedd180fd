"""Which plugin is asked about what, and in which order."""

from __future__ import annotations

import pytest

from kapi import kinds
from kapi.admission.chain import Attributes, Chain, Operation, Plugin
from kapi.authn.user import User
from kapi.errors import Forbidden
from kapi.registry.kind import Kind

WRITES: frozenset[Operation] = frozenset({'CREATE', 'UPDATE'})


def kind(plural: str) -> Kind:
    return next(k for k in kinds.KINDS if k.resource.plural == plural and not k.resource.group)


def write(operation: Operation, plural: str) -> Attributes:
    return Attributes(operation, kind(plural), 'default', 'x', {}, None, User('somebody'))


class Noting(Plugin):
    operations = WRITES

    def __init__(self, name: str, asked: list[str]) -> None:
        self.name = name
        self.asked = asked


class Mutating(Noting):
    async def mutate(self, a: Attributes) -> None:
        self.asked.append(f'{self.name} mutates')


class Validating(Noting):
    async def validate(self, a: Attributes) -> None:
        self.asked.append(f'{self.name} validates')


class OfPods(Validating):
    about = frozenset({('', 'pods')})
    operations = frozenset({'CREATE'})


class OfSecrets(Validating):
    about = frozenset({('', 'secrets')})


class Refusing(Plugin):
    name, operations = 'no', WRITES

    async def validate(self, a: Attributes) -> None:
        raise Forbidden('no')


async def ask(chain: Chain, a: Attributes) -> None:
    await chain.mutate(a)
    await chain.validate(a)


@pytest.mark.parametrize(
    ('operation', 'plural', 'wanted'),
    [
        ('CREATE', 'pods', ['b mutates', 'a validates', 'c validates']),
        ('UPDATE', 'pods', ['b mutates', 'a validates']),
        ('CREATE', 'secrets', ['b mutates', 'a validates', 'd validates']),
        ('CREATE', 'configmaps', ['b mutates', 'a validates']),
        ('DELETE', 'pods', []),
    ],
)
async def test_plugins_are_asked_in_order_about_what_they_are_for(operation: Operation, plural: str, wanted: list[str]):
    asked: list[str] = []
    plugins = (Validating('a', asked), Mutating('b', asked), OfPods('c', asked), OfSecrets('d', asked))
    await ask(Chain(plugins), write(operation, plural))
    assert asked == wanted


async def test_what_was_reserved_is_given_back_when_a_later_plugin_refuses():
    given_back: list[str] = []

    class Reserving(Mutating):
        async def validate(self, a: Attributes) -> None:
            async def undo() -> None:
                given_back.append(self.name)

            a.undo.append(undo)

    with pytest.raises(Forbidden):
        await ask(Chain((Reserving('quota', []), Refusing())), write('CREATE', 'pods'))
    assert given_back == ['quota']
