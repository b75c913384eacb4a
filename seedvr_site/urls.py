"""Mounts the apps on HTTP."""

from django.conf import settings
from django.contrib import admin
from django.urls import include, path

from seedvr_site import views

admin.site.site_header = f"{settings.PRODUCT_NAME} operations"
admin.site.site_title = admin.site.site_header

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
