"""Sockets: let in like pages, hear hints on commit, send the page's own fragments."""

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.utils import timezone

from accounts import closing
from accounts.models import User
from restorations import notifications
from restorations.models import Restoration, Video
from seedvr_site.asgi import application
from tests.factories import RestorationFactory, VideoFactory

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]


class Socket:
    """A browser's end of a socket to the whole application."""

    def __init__(self, client, path, origin=b"http://127.0.0.1"):
        cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items())
        headers = [(b"cookie", cookies.encode()), (b"host", b"127.0.0.1"), (b"origin", origin)]
        scope = {"type": "websocket", "path": path, "raw_path": path.encode(), "headers": headers}
        self.end = ApplicationCommunicator(application, scope | {"query_string": b"", "subprotocols": []})

    async def open(self):
        await self.end.send_input({"type": "websocket.connect"})
        return (await self.end.receive_output(5))["type"] == "websocket.accept"

    async def text(self):
        return (await self.end.receive_output(5))["text"]

    async def close(self):
        await self.end.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.end.wait(5)


async def test_a_change_reaches_the_page_of_the_restoration(alice_client, workspace):
    restoration = await sync_to_async(RestorationFactory)(video__workspace=workspace)
    socket = Socket(alice_client, f"/ws/w/{workspace.slug}/restorations/{restoration.pk}/")
    assert await socket.open()
    first = await socket.text()
    await sync_to_async(Restoration.objects.update)(status="running", stage="restoring", num_frames_done=37)
    await sync_to_async(notifications.restoration_changed)(restoration)
    second = await socket.text()
    assert 'id="restoration-status"' in first
    assert 'id="restoration-status"' in second
    assert "37 of 100" not in first
    assert "37 of 100" in second
    await socket.close()


async def test_a_change_reaches_the_workspaces_pages(alice_client, workspace):
    socket = Socket(alice_client, f"/ws/w/{workspace.slug}/")
    assert await socket.open()
    restoration = await sync_to_async(RestorationFactory)(video__workspace=workspace)
    await sync_to_async(notifications.restoration_changed)(restoration)
    assert f'id="restoration-{restoration.pk}"' in await socket.text()
    await sync_to_async(notifications.video_changed)(restoration.video)
    assert f'id="video-{restoration.video.pk}"' in await socket.text()
    await sync_to_async(Video.objects.update)(deleted_at=timezone.now())
    await sync_to_async(notifications.video_changed)(restoration.video)
    assert f'id="video-{restoration.video.pk}-deleted"' in await socket.text()
    await socket.close()


def end_session(browser, person):
    browser.session.delete()


def set_password(browser, person):
    person.set_password("something else altogether")
    person.save()


def deactivate(browser, person):
    User.objects.filter(pk=person.pk).update(is_active=False)


def close_account(browser, person):
    closing.close(person)


@pytest.mark.parametrize("leave", [end_session, set_password, deactivate, close_account])
async def test_who_is_signed_out_elsewhere_hears_nothing_more(leave, signed_in, bob, workspace):
    browser = await sync_to_async(signed_in)(bob)
    restoration = await sync_to_async(RestorationFactory)(video__workspace=workspace)
    socket = Socket(browser, f"/ws/w/{workspace.slug}/restorations/{restoration.pk}/")
    assert await socket.open()
    await socket.text()
    await sync_to_async(leave)(browser, bob)
    await sync_to_async(notifications.restoration_changed)(restoration)
    assert (await socket.end.receive_output(5))["type"] == "websocket.close"
    await socket.close()


async def test_a_video_shows_what_was_found_in_it(alice_client, workspace):
    video = await sync_to_async(VideoFactory)(workspace=workspace, status="inspecting", num_frames=0)
    socket = Socket(alice_client, f"/ws/w/{workspace.slug}/videos/{video.pk}/")
    assert await socket.open()
    assert 'id="video-status"' in await socket.text()
    await sync_to_async(type(video).objects.update)(status="rejected", rejection="no_picture")
    await sync_to_async(notifications.video_changed)(video)
    assert "sound but no picture" in await socket.text()
    await socket.close()


async def test_who_signs_out_in_another_tab_hears_nothing_more(alice_client, workspace):
    restoration = await sync_to_async(RestorationFactory)(video__workspace=workspace)
    socket = Socket(alice_client, f"/ws/w/{workspace.slug}/restorations/{restoration.pk}/")
    assert await socket.open()
    await socket.text()
    await sync_to_async(alice_client.logout)()
    await sync_to_async(notifications.restoration_changed)(restoration)
    assert (await socket.end.receive_output(5))["type"] == "websocket.close"


async def test_strangers_and_other_origins_are_not_let_in(alice_client, charlie_client, client, workspace):
    restoration = await sync_to_async(RestorationFactory)(video__workspace=workspace)
    paths = [
        f"/ws/w/{workspace.slug}/",
        f"/ws/w/{workspace.slug}/restorations/{restoration.pk}/",
        f"/ws/w/{workspace.slug}/videos/{restoration.video.pk}/",
    ]
    for path in paths:
        for stranger in (charlie_client, client):
            assert not await Socket(stranger, path).open()
        assert not await Socket(alice_client, path, origin=b"https://evil.example").open()


async def test_another_workspaces_restoration_is_not_there(alice_client, workspace):
    foreign = await sync_to_async(RestorationFactory)()
    assert not await Socket(alice_client, f"/ws/w/{workspace.slug}/restorations/{foreign.pk}/").open()
