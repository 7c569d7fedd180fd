"""The verbs against a real API server: what they print, and with which exit code."""

from __future__ import annotations

import contextlib
import json
import threading

import pytest
import yaml

from kctl.verbs.lib.session import Flags, Session

CONFIG = """
apiVersion: v1
kind: ConfigMap
metadata: {name: %s, labels: {app: web}}
data: {key: "%s"}
"""
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: one, image: a, env: [{name: A, value: "1"}, {name: B, value: "2"}]}
      - {name: two, image: b}
"""


def test_apply_says_created_unchanged_and_configured(space):
    first = CONFIG % ('c', 'old')
    assert space('apply', '-f', '-', stdin=first).out == 'configmap/c created\n'
    assert space('apply', '-f', '-', stdin=first).out == 'configmap/c unchanged\n'
    assert space('apply', '-f', '-', stdin=CONFIG % ('c', 'new')).out == 'configmap/c configured\n'
    assert space('get', 'cm', 'c', '-o', 'jsonpath={.data.key}').out == 'new'


def test_apply_removes_what_the_manifest_dropped_and_keeps_what_others_wrote(space):
    space('apply', '-f', '-', stdin=DEPLOYMENT)
    space('scale', 'deploy/web', '--replicas=7')
    space('annotate', 'deploy', 'web', 'note=mine')
    slimmer = DEPLOYMENT.replace('  replicas: 2\n', '').replace(', {name: B, value: "2"}', '')
    slimmer = slimmer.replace('      - {name: two, image: b}\n', '')
    assert space('apply', '-f', '-', stdin=slimmer).out == 'deployment.apps/web configured\n'
    found = json.loads(space('get', 'deploy', 'web', '-o', 'json').out)
    containers = found['spec']['template']['spec']['containers']
    assert [c['name'] for c in containers] == ['one']
    assert [e['name'] for e in containers[0]['env']] == ['A']
    assert found['metadata']['annotations']['note'] == 'mine'
    assert space('apply', '-f', '-', stdin=slimmer).out == 'deployment.apps/web unchanged\n'


def test_apply_reads_directories_and_goes_on_after_a_bad_object(space, tmp_path):
    (tmp_path / 'a.yaml').write_text(CONFIG % ('a', '1') + '---' + CONFIG % ('Bad_Name', '1'))
    (tmp_path / 'b.yml').write_text(CONFIG % ('b', '1'))
    (tmp_path / 'notes.txt').write_text('not a manifest')
    reply = space('apply', '-f', str(tmp_path))
    assert reply.code == 1
    assert reply.out == 'configmap/a created\nconfigmap/b created\n'
    assert reply.err.startswith('The ConfigMap "Bad_Name" is invalid: metadata.name: Invalid value: "Bad_Name"')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('a: b: c', 'STDIN:1:5: mapping values are not allowed in this context'),
        ('- 1\n- 2', 'STDIN: an object is expected, not list'),
        ('kind: Pod', 'STDIN: an object without apiVersion'),
        ('apiVersion: v1\nkind: Pod\nmetadata: 7', 'STDIN: metadata: a mapping is expected, not int'),
        ('apiVersion: v1\nkind: ConfigMap', 'STDIN: metadata.name: a name is required to apply'),
        ('"\\xff', 'STDIN:1:6: found unexpected end of stream'),
        ('a: &x [*x]\nb: *y', 'STDIN:2:4: found undefined alias'),
    ],
)
def test_a_broken_manifest_is_one_line_that_says_where(space, text, message):
    reply = space('apply', '-f', '-', stdin=text)
    assert reply.code == 1
    assert reply.err == f'error: {message}\n'


def test_an_unknown_kind_a_missing_file_and_a_wrong_namespace_are_named(space):
    unknown = 'apiVersion: v9\nkind: Foo\nmetadata: {name: x}'
    assert 'no matches for kind "Foo" in version "v9"' in space('apply', '-f', '-', stdin=unknown).err
    assert space('apply', '-f', '/none.yaml').err == 'error: the path "/none.yaml" does not exist\n'
    foreign = (CONFIG % ('c', '1')).replace('{name: c', '{namespace: other, name: c')
    assert (
        'the namespace from the provided object "other" does not match' in space('apply', '-f', '-', stdin=foreign).err
    )


def test_get_prints_the_servers_columns(space):
    space('apply', '-f', '-', stdin=DEPLOYMENT)
    lines = space('get', 'deploy').out.splitlines()
    assert lines[0].split() == ['NAME', 'READY', 'UP-TO-DATE', 'AVAILABLE', 'AGE']
    assert lines[1].startswith('web    0/2     0            0           ')
    wide = space('get', 'deployments.apps', '-o', 'wide', '--no-headers').out.split()
    assert wide[-3:] == ['one,two', 'a,b', 'app=web']


def test_get_shows_several_kinds_with_their_names_prefixed(space):
    space('apply', '-f', '-', stdin=CONFIG % ('c', '1') + '---' + DEPLOYMENT)
    blocks = space('get', 'cm,deploy').out.split('\n\n')
    assert blocks[0].splitlines()[1].startswith('configmap/c ')
    assert blocks[1].splitlines()[1].startswith('deployment.apps/web ')


def test_get_in_other_forms(space):
    space('apply', '-f', '-', stdin=CONFIG % ('a', '1') + '---' + CONFIG % ('b', 'yes'))
    assert space('get', 'cm', '-o', 'name', '-l', 'app=web').out == 'configmap/a\nconfigmap/b\n'
    assert space('get', 'cm', '-o', 'custom-columns=N:.metadata.name,K:.data.key,X:.none').out == (
        'N     K     X\na     1     <none>\nb     yes   <none>\n'
    )
    whole = yaml.safe_load(space('get', 'cm', 'b', '-o', 'yaml').out)
    assert (whole['kind'], whole['data']) == ('ConfigMap', {'key': 'yes'})
    listed = json.loads(space('get', 'cm', '-o', 'json').out)
    assert (listed['kind'], len(listed['items'])) == ('List', 2)
    assert space('get', 'cm', '-L', 'app', '--show-labels').out.splitlines()[1].split()[-2:] == ['web', 'app=web']
    field = space('get', 'cm', '--field-selector', 'metadata.name=b', '-oname')
    assert field.out == 'configmap/b\n'


def test_get_says_when_there_is_nothing(space, kctl):
    empty = space('get', 'pods')
    assert empty.code == 0
    assert empty.err.startswith('No resources found in n')
    missing = kctl('get', 'pod', 'nosuch')
    assert (missing.code, missing.err) == (1, 'Error from server (NotFound): pods "nosuch" not found\n')
    assert kctl('get', 'pod', 'nosuch', '--ignore-not-found').code == 0
    assert kctl('get', 'wibble').err == 'error: the server doesn\'t have a resource type "wibble"\n'


def test_get_all_namespaces_has_a_column_for_them(space, kctl):
    space('apply', '-f', '-', stdin=CONFIG % ('everywhere', '1'))
    lines = kctl('get', 'cm', '-A').out.splitlines()
    assert lines[0].split()[:2] == ['NAMESPACE', 'NAME']
    assert any(line.split()[1] == 'everywhere' for line in lines[1:])


def test_create_refuses_what_exists(space):
    assert space('create', '-f', '-', stdin=CONFIG % ('c', '1')).out == 'configmap/c created\n'
    again = space('create', '-f', '-', stdin=CONFIG % ('c', '1'))
    assert again.code == 1
    assert again.err == (
        'Error from server (AlreadyExists): error when creating "STDIN": configmaps "c" already exists\n'
    )


def test_create_has_short_forms(space):
    assert space('create', 'deployment', 'd', '--image=x:1', '-r', '3').out == 'deployment.apps/d created\n'
    assert space('get', 'deploy', 'd', '-o', 'jsonpath={.spec.replicas}').out == '3'
    assert space('create', 'cm', 'c', '--from-literal=a=b').code == 0
    assert space('create', 'sa', 'robot').out == 'serviceaccount/robot created\n'


def test_delete_by_name_by_selector_by_file_and_what_is_missing(space):
    for name in 'abcd':
        space('apply', '-f', '-', stdin=CONFIG % (name, '1'))
    assert space('delete', 'cm', 'a').out == 'configmap "a" deleted\n'
    assert space('delete', '-f', '-', stdin=CONFIG % ('b', '1')).out == 'configmap "b" deleted\n'
    assert (
        space('delete', 'cm', '-l', 'app=web', '--wait=false').out == 'configmap "c" deleted\nconfigmap "d" deleted\n'
    )
    gone = space('delete', 'cm/a')
    assert (gone.code, gone.err) == (1, 'Error from server (NotFound): configmaps "a" not found\n')
    assert space('delete', 'cm', 'a', '--ignore-not-found').code == 0
    assert 'no name was specified' in space('delete', 'cm').err


def test_delete_waits_only_as_long_as_it_is_told(space):
    held = (CONFIG % ('held', '1')).replace('{name: held', '{finalizers: [example.com/hold], name: held')
    space('apply', '-f', '-', stdin=held)
    reply = space('delete', 'cm', 'held', '--timeout=200ms')
    assert (reply.code, reply.err) == (1, 'error: timed out waiting for the condition on configmaps/held\n')
    free = '[{"op":"remove","path":"/metadata/finalizers"}]'
    assert space('patch', 'cm', 'held', '--type=json', '-p', free).code == 0
    assert space('wait', '--for=delete', 'cm/held', '--timeout=5s').code == 0


def test_scale_and_its_precondition(space):
    space('apply', '-f', '-', stdin=DEPLOYMENT)
    assert space('scale', 'deployment', 'web', '--replicas=5').out == 'deployment.apps/web scaled\n'
    assert 'Expected replicas to be 1, was 5' in space(
        'scale', 'deploy/web', '--replicas=2', '--current-replicas=1'
    ).err  # fmt: skip
    assert space('scale', 'cm/nothing', '--replicas=1').code == 1


def test_label_and_annotate(space):
    space('apply', '-f', '-', stdin=CONFIG % ('c', '1'))
    assert space('label', 'cm', 'c', 'tier=a').out == 'configmap/c labeled\n'
    assert space('label', 'cm', 'c', 'tier=a').out == 'configmap/c not labeled\n'
    taken = space('label', 'cm', 'c', 'tier=b')
    assert (taken.code, taken.err) == (1, "error: 'tier' already has a value (a), and --overwrite is false\n")
    assert space('label', 'cm', 'c', 'tier=b', '--overwrite').out == 'configmap/c labeled\n'
    assert space('label', 'cm/c', 'tier-').out == 'configmap/c unlabeled\n'
    assert space('annotate', 'cm', 'c', 'note=x').out == 'configmap/c annotated\n'
    bad = space('label', 'cm', 'c', 'bad key=1')
    assert bad.code == 1
    assert bad.err.startswith('The ConfigMap "c" is invalid: metadata.labels: ')


def test_patch_of_three_kinds(space):
    space('apply', '-f', '-', stdin=DEPLOYMENT)
    strategic = '{"spec":{"template":{"spec":{"containers":[{"name":"one","image":"z"}]}}}}'
    assert space('patch', 'deploy', 'web', '-p', strategic).out == 'deployment.apps/web patched\n'
    assert space('patch', 'deploy', 'web', '-p', strategic).out == 'deployment.apps/web patched (no change)\n'
    images = '{.spec.template.spec.containers[*].image}'
    assert space('get', 'deploy', 'web', f'-ojsonpath={images}').out == 'z b'
    assert space('patch', 'deploy/web', '--type=merge', '-p', 'spec: {replicas: 9}').code == 0
    assert 'unable to parse the patch' in space('patch', 'deploy/web', '-p', '{').err


def test_wait_for_a_field_and_a_condition_that_does_not_come(space):
    space('apply', '-f', '-', stdin=DEPLOYMENT)
    assert space('wait', 'deploy/web', '--for=jsonpath={.spec.replicas}=2').out == 'deployment.apps/web condition met\n'
    late = space('wait', 'deploy/web', '--for=condition=Available', '--timeout=300ms')
    assert (late.code, late.err) == (1, 'error: timed out waiting for the condition on deployments/web\n')


def test_rollout_restart_pause_and_resume(space):
    space('apply', '-f', '-', stdin=DEPLOYMENT)
    assert space('rollout', 'restart', 'deploy/web').out == 'deployment.apps/web restarted\n'
    assert space('rollout', 'pause', 'deploy/web').out == 'deployment.apps/web paused\n'
    assert 'already paused' in space('rollout', 'pause', 'deploy/web').err
    assert space('rollout', 'resume', 'deploy/web').out == 'deployment.apps/web resumed\n'
    assert space('rollout', 'history', 'deploy/web').out.splitlines()[0] == 'deployment.apps/web '
    assert 'no rollout history found' in space('rollout', 'undo', 'deploy/web').err


def test_describe_shows_fields_and_the_absence_of_events(space):
    space('apply', '-f', '-', stdin=CONFIG % ('c', 'value'))
    text = space('describe', 'cm', 'c').out
    assert text.startswith('Name:         c\nNamespace:    n')
    assert 'Labels:       app=web\n' in text
    assert '\nkey:\n----\nvalue\n' in text
    assert text.rstrip().endswith('Events:  <none>')
    space('apply', '-f', '-', stdin=DEPLOYMENT)
    text = space('describe', 'deploy/web').out
    assert 'Replicas:               2 desired | 0 updated | 0 total | 0 available | 0 unavailable\n' in text
    assert space('describe', 'sa', 'nosuch').code == 1


def test_what_the_server_serves(kctl):
    rows = [line.split() for line in kctl('api-resources').out.splitlines()]
    assert rows[0] == ['NAME', 'SHORTNAMES', 'APIVERSION', 'NAMESPACED', 'KIND']
    assert ['pods', 'po', 'v1', 'true', 'Pod'] in rows
    assert 'deployments.apps\n' in kctl('api-resources', '-o', 'name', '--api-group=apps').out
    assert 'apps/v1' in kctl('api-versions').out.splitlines()
    assert kctl('cluster-info').out.startswith('Kubernetes control plane is running at https://127.0.0.1:')
    assert kctl('version').out.splitlines()[1].startswith('Server Version: v1.')


def test_impersonation_and_refusal(kctl):
    reply = kctl('get', 'pods', '--as=bob')
    assert reply.code == 1
    assert reply.err.startswith('Error from server (Forbidden): pods is forbidden: User "bob" cannot list resource')


def test_get_watch_goes_on_from_the_list(space, server):
    session = Session(Flags(kubeconfig=str(server)))
    params = {'watch': 'true', 'labelSelector': 'app=web', 'fieldSelector': 'metadata.name=later'}
    seen: list[str] = []

    def follow() -> None:
        with contextlib.closing(session.http.lines('/api/v1/configmaps', params)) as lines:
            seen.append(json.loads(next(lines))['object']['metadata']['name'])

    thread = threading.Thread(target=follow)
    thread.start()
    space('apply', '-f', '-', stdin=CONFIG % ('later', '1'))
    thread.join(20)
    session.close()
    assert seen == ['later']
