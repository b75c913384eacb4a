"""Mounts the apps on HTTP."""

from allauth.account.decorators import secure_admin_login
from django.conf import settings
from django.contrib import admin
from django.urls import include, path

from seedvr_site import views

admin.site.site_header = f"{settings.PRODUCT_NAME} operations"
admin.site.site_title = admin.site.site_header
# Operators come in by the door that everybody uses, with its limits and second steps; the admin's own form has neither.
admin.site.login = secure_admin_login(admin.site.login)  # type: ignore[method-assign]

handler429 = "accounts.rate_limits.too_many_requests"  # allauth looks for it
urlpatterns = [
    path("", views.home, name="home"),
    path("pricing/", views.pricing, name="pricing"),
    path("healthz", views.health, name="health"),
    path("", include("accounts.urls")),
    path("", include("restorations.urls")),
    path("", include("billing.urls")),
    path("accounts/", include("allauth.urls")),
    path("operations/", admin.site.urls),
]
