"""For all rooms: examples are judged by what they show, never by how long a busy machine takes to make them."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    'kubeling', deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile('kubeling')
