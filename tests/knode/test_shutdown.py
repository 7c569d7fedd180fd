"""Who has how long when the node shuts down, as it is configured."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from knode.config import NodeConfig
from knode.shutdown import phases_of


def config(**given):
    return NodeConfig(name='n', kubeconfig='/dev/null', data_dir='/', **given)


@pytest.mark.parametrize(
    ('given', 'phases'),
    [
        ({}, {}),
        ({'shutdown_grace_period_s': 30}, {0: 30.0}),
        ({'shutdown_grace_period_s': 30, 'shutdown_grace_period_critical_pods_s': 10}, {0: 20.0, 2_000_000_000: 10.0}),
        ({'shutdown_grace_period_by_pod_priority': '1000=20,0=60'}, {0: 60.0, 1000: 20.0}),
    ],
)
def test_phases_follow_from_the_settings(given, phases):
    assert list(phases_of(config(**given)).items()) == list(phases.items())


@pytest.mark.parametrize(
    ('given', 'words'),
    [
        ({'shutdown_grace_period_by_pod_priority': 'high=20'}, "'high=20' is not PRIORITY=SECONDS"),
        ({'shutdown_grace_period_by_pod_priority': '0=60,5'}, "'5' is not PRIORITY=SECONDS"),
        ({'shutdown_grace_period_by_pod_priority': '0=-1'}, "'0=-1' is not PRIORITY=SECONDS"),
        ({'shutdown_grace_period_by_pod_priority': '0=60', 'shutdown_grace_period_s': 5}, 'stands instead of'),
        ({'shutdown_grace_period_s': 5, 'shutdown_grace_period_critical_pods_s': 6}, 'must not be greater'),
    ],
)
def test_settings_that_cannot_be_name_themselves(given, words):
    with pytest.raises(ValidationError, match=words):
        config(**given)
