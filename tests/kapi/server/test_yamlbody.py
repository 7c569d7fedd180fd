"""YAML bodies: what people write is read as before; what would take the server down is refused in no time."""

import random
import string

import orjson
import pytest
import yaml

from kapi.schemas.decode import MAX_DEPTH
from kapi.server import yamlbody
from kapi.server.bodies import parse_object
from kapi.server.negotiation import YAML
from kapi.server.yamlbody import NODES_MAX, NotYaml

EXAMPLES = {
    'scalars': ('a: 0777\nb: 0x1f\nc: yes\nd: 1.5\ne: ~\nf: "1"\ng: 2020-01-01\nh: !!str 5\ni: !!int "7"\nj: 1e3\n',
                {'a': 511, 'b': 31, 'c': True, 'd': 1.5, 'e': None, 'f': '1', 'g': '2020-01-01', 'h': '5', 'i': 7,
                 'j': '1e3'}),
    'nesting': ('a:\n- b: [1, {c: d}]\n- |\n  text\n  more\n', {'a': [{'b': [1, {'c': 'd'}]}, 'text\nmore\n']}),
    'alias': ('a: &x {n: 1}\nb: *x\n', {'a': {'n': 1}, 'b': {'n': 1}}),
    'merge': ('a: &x {n: 1, m: 2}\nb:\n  <<: *x\n  m: 3\n', {'a': {'n': 1, 'm': 2}, 'b': {'m': 3, 'n': 1}}),
    'merges': ('b:\n  <<: [{n: 1}, {n: 2, m: 2}]\n', {'b': {'n': 1, 'm': 2}}),
    'nothing': ('', None),
    'json': ('{"a": ["\\u00e9", 1, true, null]}', {'a': ['é', 1, True, None]}),
}  # fmt: skip


@pytest.mark.parametrize('name', EXAMPLES)
def test_what_people_write_is_read(name):
    text, value = EXAMPLES[name]
    assert yamlbody.read(text.encode()) == (value, [])


def test_it_reads_what_another_writes():
    rng = random.Random(5)

    def value(depth):
        match rng.randrange(6 if depth else 4):
            case 0:
                return ''.join(rng.choices(string.printable + 'é世', k=rng.randrange(20)))
            case 1:
                return rng.choice((None, True, False, 'yes', '0x10', '~', '<<', '=', '1:30', ''))
            case 2:
                return rng.randrange(-(2**40), 2**40)
            case 3:
                return rng.random() * 10 ** rng.randrange(-9, 9)
            case 4:
                return [value(depth - 1) for _ in range(rng.randrange(4))]
        return {f'k{i}{rng.choice(("", ": ", "#", "é"))}': value(depth - 1) for i in range(rng.randrange(4))}

    for _ in range(300):
        wanted = value(4)
        text = yaml.dump(wanted, allow_unicode=rng.random() < 0.5, default_flow_style=rng.choice((None, True, False)))
        assert yamlbody.read(text.encode())[0] == wanted, text


def test_repeated_keys_are_told_with_their_line():
    assert yamlbody.read(b'a: 1\nb:\n  c: 1\n  c: 2\na: 3\n')[1] == [
        'line 4: key "c" already set in map',
        'line 5: key "a" already set in map',
    ]


BROKEN = {
    'lists in lists': (b'[' * 3_000_000, 'max depth'),
    'closed lists': (b'[' * 500_000 + b']' * 500_000, 'max depth'),
    'maps in maps': (b'{"a":' * 500_000, 'max depth'),
    'dashes': (b'- ' * 1_000_000, 'max depth'),
    'question marks': (b'? ' * 1_000_000, 'max depth'),
    'deep by aliases': (b'- &a0 []\n' + b''.join(b'- &a%d [*a%d]\n' % (i, i - 1) for i in range(1, 999)), 'max depth'),
    'many values': (b'[' + b'1,' * 1_400_000 + b'1]', 'too many values'),
    'a bomb': (b'- &a0 [x,x,x,x,x,x,x,x,x,x]\n' + b''.join(
        b'- &a%d [%s]\n' % (i, b','.join([b'*a%d' % (i - 1)] * 10)) for i in range(1, 9)), 'excessive aliasing'),
    'itself': (b'&a [*a]', 'contains itself'),
    'nobody': (b'[*a]', 'is unknown'),
    'a call': (b'!!python/object/apply:os.system ["id"]', 'line 1: cannot make'),
    'no number': (b'a: !!int abc', 'cannot make'),
    'a list as a key': (b'? [a]\n: b', 'a key must be a scalar'),
    'two documents': (b'a: 1\n---\nb: 2\n', 'expected a single document'),
    'not closed': (b'a: [', 'did not find expected node content'),
    'no text': (b'a: \xff\xfe', 'invalid'),
    'a control character': (b'a: \x00', 'control characters'),
}  # fmt: skip


@pytest.mark.parametrize('name', BROKEN)
def test_what_nobody_writes_is_refused(name):
    data, why = BROKEN[name]
    with pytest.raises(NotYaml, match=why):
        yamlbody.read(data)


def test_as_deep_as_json_may_be_is_fine():
    found, _ = yamlbody.read(b'[' * MAX_DEPTH + b']' * MAX_DEPTH)
    for _ in range(MAX_DEPTH - 1):
        [found] = found
    assert found == []
    with pytest.raises(NotYaml, match='max depth'):
        yamlbody.read(b'[' * (MAX_DEPTH + 1) + b']' * (MAX_DEPTH + 1))


def test_json_sent_as_yaml_is_read_as_json_unless_a_key_is_repeated():
    many = {f'k{i}': 'v' for i in range(NODES_MAX)}
    assert parse_object(orjson.dumps(many), YAML) == (many, '')
    value, told = parse_object(b'{"a": 1, "a": 2}', YAML)
    assert value == {'a': 2}
    assert 'key "a" already set in map' in told
    assert parse_object(b'{a: 1}', YAML) == ({'a': 1}, '')
