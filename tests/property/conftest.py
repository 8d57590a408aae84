"""How much Hypothesis tries: CI a short and fixed part; PROPERTY_EXAMPLES=20000 (or TESTS=all) a long, random one."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

from tests.schedule import IS_WHOLE

SLOW = [
    HealthCheck.too_slow,
    HealthCheck.data_too_large,
    HealthCheck.function_scoped_fixture,
    HealthCheck.filter_too_much,
]
examples = int(os.environ.get("PROPERTY_EXAMPLES", "2000" if IS_WHOLE else "0"))

# In CI a failing example is told as it was found: to shrink it takes minutes, which PROPERTY_EXAMPLES=100 has.
settings.register_profile(
    "ci",
    phases=[Phase.explicit, Phase.generate],
    max_examples=20,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=SLOW,
)
settings.register_profile(
    "long", max_examples=max(examples, 1), deadline=None, database=None, suppress_health_check=SLOW, print_blob=True
)
settings.load_profile("long" if examples else "ci")
