"""The sockets' doors: they open to the people whom the page is for, and to nobody else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.conf import settings
from django.test import Client
from django.urls import URLPattern

from accounts.models import User, Workspace
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


async def answer_to(client: Client, path: str) -> str:
    """Opens a socket as this browser would; returns the type of the server's first message."""
    cookies = "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items())
    origin = settings.SITE_URL.encode()
    scope = {
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
    communicator = ApplicationCommunicator(application, scope)
    await communicator.send_input({"type": "websocket.connect"})
    message = await communicator.receive_output(timeout=5)
    await communicator.send_input({"type": "websocket.disconnect", "code": 1000})
    communicator.stop(exceptions=False)
    return message["type"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", SOCKETS)
async def test_viewer_may_listen(name: str, vera: User, workspace: Workspace, signed_in: SignIn) -> None:
    client = await sync_to_async(signed_in)(vera)
    path = await sync_to_async(socket_path)(name, workspace)
    assert await answer_to(client, path) == "websocket.accept"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", SOCKETS)
async def test_stranger_may_not_listen(
    name: str, charlie: User, workspace: Workspace, signed_in: SignIn
) -> None:
    client = await sync_to_async(signed_in)(charlie)
    path = await sync_to_async(socket_path)(name, workspace)
    assert await answer_to(client, path) == "websocket.close"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", SOCKETS)
async def test_visitor_may_not_listen(name: str, workspace: Workspace) -> None:
    path = await sync_to_async(socket_path)(name, workspace)
    assert await answer_to(Client(), path) == "websocket.close"
