"""The plugins, in the order in which nodes are checked. A new one is a file here and a line below."""

from __future__ import annotations

from kcontrol.scheduler.framework import Plugin
from kcontrol.scheduler.plugins import (
    nodeaffinity,
    nodename,
    podaffinity,
    ports,
    resources,
    spread,
    taints,
    unschedulable,
    volumes,
)

PLUGINS: tuple[Plugin, ...] = (
    unschedulable.PLUGIN,
    nodename.PLUGIN,
    taints.PLUGIN,
    nodeaffinity.PLUGIN,
    ports.PLUGIN,
    resources.FIT,
    resources.BALANCED,
    volumes.PLUGIN,
    spread.PLUGIN,
    podaffinity.PLUGIN,
)
