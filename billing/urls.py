from django.urls import path

from billing import views

urlpatterns = [
    path("w/<slug:slug>/credits/", views.credit_statement, name="credit-statement"),
    path("w/<slug:slug>/credits/statement.csv", views.credit_statement_csv, name="credit-statement-csv"),
    path("w/<slug:slug>/credits/buy/", views.credit_buy, name="credit-buy"),
    path("w/<slug:slug>/credits/checkout/", views.credit_checkout, name="credit-checkout"),
    path(
        "w/<slug:slug>/credits/purchases/<uuid:purchase_id>/", views.purchase_detail, name="purchase-detail"
    ),
    path("w/<slug:slug>/credits/portal/", views.credit_portal, name="credit-portal"),
    path("w/<slug:slug>/credits/top-up/", views.top_up_update, name="top-up-update"),
    path("hooks/stripe/", views.stripe_webhook, name="stripe-webhook"),
]
