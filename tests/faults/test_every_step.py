"""A process killed with SIGKILL before each statement and around each commit of a job's way; then the repairs run.

A step is run in a child that kills itself at its first point, then in one that gets to the second, and so on until one
gets through. After each, what repairs and sweeps do brings the order to its end: right money, one result, no orphan.
"""

from __future__ import annotations

import io
import itertools
import os
import signal
import traceback
from collections.abc import Callable

import pytest
from django.core import mail
from django.db import connection, connections
from django.utils import timezone

from accounts.models import User
from billing import ledger
from restorations import dispatch, lifecycle, notifications, objects, retention, submission
from restorations.models import Attempt, Restoration
from restorations.options import Options
from tests.factories import RestorationFactory, UserFactory, VideoFactory
from tests.faults.world import World, check

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.services,
    pytest.mark.both_databases,
    pytest.mark.timeout(600),
]
Status = Restoration.Status

#: `make faults` also kills inside of transactions, which takes minutes.
EVERY_STATEMENT = bool(os.environ.get("FAULTS"))
#: More than any step has; a step that gets this far runs in a circle.
MANY = 200


# --- Dying --------------------------------------------------------------------------------------------------


def killed_at(point: int, step: Callable[[], object]) -> bool:
    """Runs a step in a child that is killed at the given point; False when it got through before."""
    # Parent and child would talk through the same sockets.
    connections.close_all()
    if connection.vendor == "postgresql":
        connection.close_pool()
    child = os.fork()
    if child == 0:
        try:
            _count_down(point)
            step()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _pid, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), "the step failed by itself"
    return status == signal.SIGKILL


def _count_down(point: int) -> None:
    points = itertools.count(1)

    def pass_point() -> None:
        if next(points) == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def around_statement(execute: Callable[..., object], *arguments: object) -> object:
        # Whatever is done of a transaction that never commits, nothing of it is there.
        if EVERY_STATEMENT or not connection.in_atomic_block:
            pass_point()
        return execute(*arguments)

    commit = connection._commit

    def around_commit() -> None:
        pass_point()
        commit()
        pass_point()

    connection.execute_wrappers.append(around_statement)
    connection._commit = around_commit  # type: ignore[method-assign]


# --- Steps --------------------------------------------------------------------------------------------------


def ordered(world: World) -> Restoration:
    restoration = RestorationFactory(created_by=UserFactory())
    objects.save(restoration.video.storage_key, io.BytesIO(b"x" * 1000))
    return restoration


def sent(world: World) -> Restoration:
    restoration = ordered(world)
    dispatch.dispatch(restoration.pk)
    return restoration


def taken(world: World) -> Restoration:
    restoration = sent(world)
    world.take(restoration)
    return restoration


def half_done(world: World) -> Restoration:
    restoration = taken(world)
    look()
    return restoration


def delivered(world: World) -> Restoration:
    restoration = half_done(world)
    world.finish_all()
    return restoration


def broken(error: str) -> Callable[[World], Restoration]:
    def prepare(world: World) -> Restoration:
        restoration = half_done(world)
        [job] = world.jobs("IN_PROGRESS")
        world.machine.done(job["id"], {"error": error})
        return restoration

    return prepare


def done(world: World) -> Restoration:
    restoration = delivered(world)
    look()
    return restoration


def look(_restoration: Restoration | None = None) -> None:
    Attempt.objects.update(next_look_at=timezone.now())
    dispatch.watch()


def send(restoration: Restoration) -> None:
    dispatch.dispatch(restoration.pk)


def cancel(restoration: Restoration) -> None:
    lifecycle.cancel(restoration, actor=User.objects.get())


def write(restoration: Restoration) -> None:
    notifications.mail_finish(restoration.pk)


def delete(restoration: Restoration) -> None:
    lifecycle.expire(Restoration.objects.get(pk=restoration.pk))
    retention.purge()


STEPS = {
    "the order is sent": (ordered, send, {Status.SUCCEEDED}),
    "a machine is seen at work": (taken, look, {Status.SUCCEEDED}),
    "the result is taken over": (delivered, look, {Status.SUCCEEDED}),
    "a machine's fault is tried again": (broken("worker_lost: gone"), look, {Status.SUCCEEDED}),
    "a fault of the file ends it": (broken("source_unreadable: no moov"), look, {Status.FAILED}),
    "a waiting order is cancelled": (ordered, cancel, {Status.CANCELLED, Status.SUCCEEDED}),
    "a running order is cancelled": (half_done, cancel, {Status.CANCELLED, Status.SUCCEEDED}),
    "the mail is written": (done, write, {Status.SUCCEEDED}),
    "the result is deleted": (done, delete, {Status.EXPIRED, Status.SUCCEEDED}),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_process_killed_anywhere_loses_nothing(world: World, name: str) -> None:
    prepare, step, ends = STEPS[name]
    for point in range(1, MANY):
        restoration = prepare(world)
        died = killed_at(point, lambda restoration=restoration: step(restoration))
        world.go_on(restoration)
        assert restoration.status in ends, point
        check(restoration, point)
        if not died:
            assert point > 2, "the step has points"
            return
        forget_everything(world)
    raise AssertionError(f"{name} has no end")


def test_an_order_killed_anywhere_is_made_and_charged_or_neither(world: World) -> None:
    for point in range(1, MANY):
        video, user = VideoFactory(), UserFactory()
        ledger.grant(workspace=video.workspace, credits=50, key=f"gift:{point}")
        died = killed_at(
            point,
            lambda video=video, user=user: submission.submit(
                video=video, user=user, options=Options(preset="720p")
            ),
        )
        orders = list(Restoration.objects.filter(video=video))
        charged = sum(order.price_credits for order in orders)
        assert ledger.balance(video.workspace) == 50 - charged, point
        assert len(orders) <= 1
        if not died:
            assert len(orders) == 1
            return


def forget_everything(world: World) -> None:
    """Leaves the next round a world of its own."""
    world.endpoint.reset()
    Attempt.objects.all().delete()
    Restoration.objects.all().delete()
    User.objects.all().delete()
    mail.outbox.clear()
