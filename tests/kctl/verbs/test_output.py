"""Columns, YAML, tables, durations, and the alignment of descriptions."""

from __future__ import annotations

import pytest
import yaml

from kctl import printers
from kctl.verbs.lib.describers.generic import words
from kctl.verbs.lib.describers.page import tabulate
from kctl.verbs.lib.durations import seconds
from kctl.verbs.lib.errors import CliError, Refused


def test_columns_are_three_apart_and_at_least_six_wide():
    assert (
        printers.aligned([['A', 'LONGER', 'Z'], ['abcdefgh', 'x', '']]) == 'A          LONGER   Z\nabcdefgh   x        '
    )


def test_a_watch_keeps_its_columns_and_prints_the_header_once():
    printer = printers.TablePrinter(namespaces=True)
    columns = [{'name': 'Name'}, {'name': 'Age'}, {'name': 'IP', 'priority': 1}]

    def table(name, definitions=columns):
        row = {'cells': [name, '5s', '1.2.3.4'], 'object': {'metadata': {'namespace': 'n'}}}
        return {'columnDefinitions': definitions, 'rows': [row]}

    assert printer.lines(table('a-long-name')) == ['NAMESPACE   NAME          AGE', 'n           a-long-name   5s']
    assert printer.lines(table('b', None)) == ['n           b             5s']


@pytest.mark.parametrize(
    'text', ['', 'true', '1', '1.5', 'null', 'y', 'a: b', '- x', 'plain', 'two\nlines\n', '0x1f', '~']
)
def test_text_survives_yaml(text):
    assert yaml.safe_load(printers.to_yaml({'k': text})) == {'k': text}


def test_yaml_quotes_like_go():
    assert printers.to_yaml({'a': '', 'b': 'true', 'c': 'x'}) == 'a: ""\nb: "true"\nc: x\n'


def test_cells_of_a_description_line_up_within_a_run_of_lines():
    lines = ['Name:\tx', 'Namespace:\tdefault', 'Conditions:', '  Type\tStatus', '  Ready \tTrue']
    assert tabulate(lines) == 'Name:       x\nNamespace:  default\nConditions:\n  Type    Status\n  Ready   True'


@pytest.mark.parametrize(
    ('name', 'title'),
    [('creationTimestamp', 'Creation Timestamp'), ('apiVersion', 'API Version'), ('uid', 'UID'),
     ('clusterIPs', 'Cluster I Ps'), ('example.com/x', 'example.com/x')],
)  # fmt: skip
def test_field_names_are_spread_into_words_even_where_kubectl_does_it_badly(name, title):
    assert words(name) == title


@pytest.mark.parametrize(
    ('text', 'value'), [('30s', 30), ('1h30m', 5400), ('500ms', 0.5), ('5', 5), ('-1s', -1), ('1.5m', 90)]
)
def test_durations(text, value):
    assert seconds(text) == value


@pytest.mark.parametrize('text', ['', 'x', '5 s', '1d'])
def test_a_wrong_duration_is_an_error(text):
    with pytest.raises(CliError, match='invalid duration'):
        seconds(text)


@pytest.mark.parametrize(
    ('status', 'text'),
    [
        ({'code': 404, 'reason': 'NotFound', 'message': 'pods "x" not found'},
         'Error from server (NotFound): pods "x" not found'),
        ({'code': 401, 'reason': 'Unauthorized', 'message': 'Unauthorized'},
         'error: You must be logged in to the server (Unauthorized)'),
        ({'code': 422, 'reason': 'Invalid', 'message': 'long', 'details': {'kind': 'Pod', 'name': 'p', 'causes': [
            {'field': 'spec.a', 'message': 'Required value'}]}},
         'The Pod "p" is invalid: spec.a: Required value'),
        ({'code': 422, 'reason': 'Invalid', 'message': 'long', 'details': {'kind': 'Pod', 'name': 'p', 'causes': [
            {'field': 'a', 'message': 'x'}, {'field': 'b', 'message': 'y'}]}},
         'The Pod "p" is invalid: \n* a: x\n* b: y'),
        ({'code': 422, 'reason': 'Invalid', 'message': 'no such path'}, 'The request is invalid: no such path'),
        ({'code': 500, 'message': 'oops'}, 'Error from server: oops'),
    ],
)  # fmt: skip
def test_a_refusal_is_said_as_kubectl_says_it(status, text):
    assert Refused(status).text() == text
