from django.urls import path

from billing import views

urlpatterns = [
    path("w/<slug:slug>/credits/", views.credit_statement, name="credit-statement"),
]
