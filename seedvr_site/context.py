"""What every template may know about the product."""

from django.conf import settings
from django.http import HttpRequest


def product(request: HttpRequest) -> dict[str, object]:
    """Returns the product's name and whether the CPU preview engine is at work."""
    return {
        "product_name": settings.PRODUCT_NAME,
        "is_cpu_engine": settings.RESTORATION_ENGINE == "cpu",
    }
