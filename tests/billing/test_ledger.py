"""The ledger: append-only, repeatable, never below zero."""

import pytest
from django.db import DatabaseError, connection, transaction

from accounts.append_only import IsAppendOnly
from billing import ledger
from billing.models import CreditEntry
from tests.factories import WorkspaceFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def workspace():
    workspace = WorkspaceFactory()
    ledger.grant(workspace=workspace, credits=10, key="start")
    return workspace


def test_the_balance_is_the_sum(workspace):
    ledger.charge(workspace=workspace, credits=4, reference="a")
    assert ledger.balance(workspace) == 6


def test_a_movement_happens_once_however_often_it_is_asked_for(workspace):
    for _ in range(3):
        ledger.grant(workspace=workspace, credits=10, key="start")
        ledger.charge(workspace=workspace, credits=4, reference="a")
        ledger.refund(workspace=workspace, credits=4, reference="a")
    assert ledger.balance(workspace) == 10
    assert CreditEntry.objects.for_workspace(workspace).count() == 3


def test_a_charge_above_the_balance_takes_nothing_and_says_what_is_missing(workspace):
    with pytest.raises(ledger.InsufficientCredits) as caught:
        ledger.charge(workspace=workspace, credits=15, reference="a")
    assert (caught.value.price, caught.value.balance, caught.value.missing) == (15, 10, 5)
    assert ledger.balance(workspace) == 10


def test_no_more_comes_back_than_was_charged(workspace):
    ledger.charge(workspace=workspace, credits=4, reference="a")
    with pytest.raises(ValueError, match="cannot give back 5 of 4"):
        ledger.refund(workspace=workspace, credits=5, reference="a")


def test_what_was_never_charged_is_not_refunded(workspace):
    assert ledger.refund(workspace=workspace, credits=5, reference="never") is None
    assert ledger.balance(workspace) == 10


def test_entries_of_another_workspace_do_not_count(workspace):
    assert ledger.balance(WorkspaceFactory()) == 0


def test_the_model_refuses_changes(workspace):
    entry = CreditEntry.objects.for_workspace(workspace).first()
    entry.credits = 1000
    for change in (entry.save, entry.delete, CreditEntry.objects.all().delete):
        with pytest.raises(IsAppendOnly):
            change()
    with pytest.raises(IsAppendOnly):
        CreditEntry.objects.update(credits=1000)


@pytest.mark.parametrize(
    "statement", ["UPDATE billing_creditentry SET credits = 1000", "DELETE FROM billing_creditentry"]
)
def test_the_database_refuses_changes(workspace, statement):
    with pytest.raises(DatabaseError, match="never changed or deleted"), transaction.atomic():
        connection.cursor().execute(statement)
    assert ledger.balance(workspace) == 10
