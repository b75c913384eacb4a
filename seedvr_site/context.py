"""What every template may know about the product."""

from django.conf import settings
from django.http import HttpRequest


def product(request: HttpRequest) -> dict[str, object]:
    """Returns the product's name, whether the CPU preview engine is at work, and what lets this page's scripts run."""
    return {
        # A string at once: the policy holds the nonce only when it was read.
        "csp_nonce": str(getattr(request, "csp_nonce", "")),
        "product_name": settings.PRODUCT_NAME,
        "is_cpu_engine": settings.RESTORATION_ENGINE == "cpu",
    }
