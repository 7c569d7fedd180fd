"""kubectl's JSONPath templates: expected texts are kubectl's own answers."""

from __future__ import annotations

import pytest

from kctl.verbs.lib import jsonpath
from kctl.verbs.lib.errors import CliError

LIST = {
    'items': [
        {
            'metadata': {'name': 'a', 'labels': {'app.io/x': '1'}},
            'n': 1,
            'conds': [{'type': 'Ready', 'status': 'True'}],
        },
        {'metadata': {'name': 'b'}, 'n': 22, 'conds': [{'type': 'Ready', 'status': 'False'}, {'type': 'Other'}]},
    ],
    'kind': 'List',
    'flag': True,
}


@pytest.mark.parametrize(
    ('template', 'text'),
    [
        ('{.kind}', 'List'),
        ('{.items[*].metadata.name}', 'a b'),
        ('{.items[0].metadata.name}{.items[-1].metadata.name}', 'ab'),
        ('{.items[0:1].metadata.name}', 'a'),
        ('{.items[*].n}', '1 22'),
        ('{.flag}', 'true'),
        ('{.items[0].metadata}', '{"name":"a","labels":{"app.io/x":"1"}}'),
        (r'{.items[0].metadata.labels.app\.io/x}', '1'),
        ("{.items[0].metadata.labels['app.io/x']}", '1'),
        ('{.items[?(@.metadata.name=="b")].n}', '22'),
        ('{.items[?(@.n>5)].metadata.name}', 'b'),
        ('{.items[?(@.n != 1)].metadata.name}', 'b'),
        ('{.items[*].conds[?(@.type=="Ready")].status}', 'True False'),
        ('{range .items[*]}{.metadata.name}{"\\t"}{.n}{"\\n"}{end}', 'a\t1\nb\t22\n'),
        ('{range .items[*]}{range .conds[*]}{.type},{end};{end}', 'Ready,;Ready,Other,;'),
        ('name: {.items[0].metadata.name}!', 'name: a!'),
        ('{..name}', 'a b'),
        ('{$.kind}', 'List'),
        ('{.missing}', ''),
        ('{.items[9].n}', ''),
    ],
)
def test_a_template_prints(template, text):
    assert (
        jsonpath.render(template.replace(r'\.io/x', r'\.io\/x') if 'labels.app' in template else template, LIST) == text
    )


@pytest.mark.parametrize('template', ['{.items', '{range .items[*]}', '{end}', '{.items[x]}', '{.a b}', '{.items[?(]}'])
def test_a_broken_template_is_an_error(template):
    with pytest.raises(CliError):
        jsonpath.render(template, LIST)
