"""The sockets' doors: they open to the people whom the page is for, and to nobody else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.conf import settings
from django.test import Client
from django.urls import URLPattern

from accounts import workspaces
from accounts.models import User, Workspace
from accounts.permissions import Role
from restorations import notifications
from restorations.models import Video
from restorations.routing import websocket_urlpatterns
from seedvr_site.asgi import application
from tests.factories import RestorationFactory, VideoFactory

SignIn = Callable[[User], Client]
SOCKETS = [pattern.name for pattern in websocket_urlpatterns]


def socket_path(name: str, workspace: Workspace) -> str:
    """Returns a socket's path with the ids of things of this workspace."""
    video = VideoFactory(workspace=workspace)
    known = {
        "slug": workspace.slug,
        "video_id": video.pk,
        "restoration_id": RestorationFactory(video=video).pk,
    }
    [pattern] = [pattern for pattern in websocket_urlpatterns if pattern.name == name]
    assert isinstance(pattern, URLPattern)
    path = str(pattern.pattern)
    for converter in ("slug:slug", "uuid:video_id", "uuid:restoration_id"):
        path = path.replace(f"<{converter}>", str(known[converter.partition(":")[2]]))
    return f"/{path}"


def scope_of(client: Client, path: str) -> dict[str, object]:
    """Returns what a server knows of a browser that opens a socket."""
    cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items())
    origin = settings.SITE_URL.encode()
    return {
        "type": "websocket",
        "path": path,
        "query_string": b"",
        "headers": [
            (b"cookie", cookies.encode()),
            (b"origin", origin),
            (b"host", origin.partition(b"://")[2]),
        ],
        "subprotocols": [],
    }


async def answer_to(client: Client, path: str) -> str:
    """Opens a socket as this browser would; returns the type of the server's first message."""
    communicator = ApplicationCommunicator(application, scope_of(client, path))
    await communicator.send_input({"type": "websocket.connect"})
    message = await communicator.receive_output(timeout=5)
    await communicator.send_input({"type": "websocket.disconnect", "code": 1000})
    communicator.stop(exceptions=False)
    return message["type"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", SOCKETS)
async def test_sockets_open_to_those_whom_the_page_is_for(
    name: str, in_role: Callable[[str], User], charlie: User, workspace: Workspace, signed_in: SignIn
) -> None:
    path = await sync_to_async(socket_path)(name, workspace)
    for role in Role:
        client = await sync_to_async(lambda role=role: signed_in(in_role(role)))()
        assert await answer_to(client, path) == "websocket.accept", role
    stranger = await sync_to_async(signed_in)(charlie)
    own = await sync_to_async(lambda: charlie.memberships.select_related("workspace").get().workspace.slug)()
    assert await answer_to(stranger, path) == "websocket.close"
    if name != "ws-workspace":
        below_own = path.replace(f"/w/{workspace.slug}/", f"/w/{own}/")
        assert await answer_to(stranger, below_own) == "websocket.close"
    assert await answer_to(Client(), path) == "websocket.close"
    await sync_to_async(workspaces.schedule_deletion)(workspace)
    assert await answer_to(client, path) == "websocket.close", "the workspace is closed"


@pytest.mark.django_db(transaction=True)
async def test_who_is_removed_hears_nothing_more(bob: User, workspace: Workspace, signed_in: SignIn) -> None:
    client = await sync_to_async(signed_in)(bob)
    path = await sync_to_async(socket_path)("ws-workspace", workspace)
    video = await Video.objects.aget(workspace=workspace)
    communicator = ApplicationCommunicator(application, scope_of(client, path))
    await communicator.send_input({"type": "websocket.connect"})
    assert (await communicator.receive_output(timeout=5))["type"] == "websocket.accept"
    await sync_to_async(notifications.video_changed)(video)
    assert (await communicator.receive_output(timeout=5))["type"] == "websocket.send"
    await workspace.memberships.filter(user=bob).adelete()
    await sync_to_async(notifications.video_changed)(video)
    assert (await communicator.receive_output(timeout=5))["type"] == "websocket.close"
    await communicator.send_input({"type": "websocket.disconnect", "code": 1000})
    communicator.stop(exceptions=False)
