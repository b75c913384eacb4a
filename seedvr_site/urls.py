"""Mounts the apps on HTTP."""

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.views.decorators.http import require_safe

admin.site.site_header = f"{settings.PRODUCT_NAME} operations"
admin.site.site_title = admin.site.site_header


@require_safe
@login_not_required
def health(request: HttpRequest) -> HttpResponse:
    """Answers load balancers and the supervisor: the process serves requests."""
    return HttpResponse("ok", content_type="text/plain")


urlpatterns = [
    path("", include("accounts.urls")),
    path("", include("restorations.urls")),
    path("", include("billing.urls")),
    path("accounts/", include("allauth.urls")),
    path("operations/", admin.site.urls),
    path("healthz", health, name="health"),
]
