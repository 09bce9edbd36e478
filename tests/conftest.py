"""What all tests share: property tests are never judged by the clock of a busy machine."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "safetake", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("safetake")
