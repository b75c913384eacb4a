"""Sockets: each hears hints about one page's rows and sends the page's own fragments, rendered anew.

A socket is let in by the same queries as the page. The message is a hint, the row is the truth; when a socket
is gone, the page polls the same fragment.
"""

from __future__ import annotations

import abc
import asyncio
from contextlib import suppress
from typing import Any

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.contrib.auth import get_user
from django.http import HttpRequest
from django.template.loader import render_to_string

from accounts import scope
from accounts.access import admitted
from accounts.context import rights
from accounts.localization import as_seen_by
from accounts.models import Membership
from billing.context import frame as credit_frame
from restorations import notifications, watching
from restorations.models import Restoration, Video
from restorations.pages import restoration_context, video_context


class PageConsumer(AsyncWebsocketConsumer, abc.ABC):  # type: ignore[misc]
    """Joins the group of the page's subject; subclasses say which that is and what a hint renders."""

    membership: Membership
    group: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.waiting: dict[tuple[str, str], dict[str, str]] = {}
        self.answering: asyncio.Task[None] | None = None
        self.noting: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Accepts members of the workspace whose subject exists; to others nothing is there."""
        if not await self._authorize():
            await self.close()
            return
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()
        self.noting = asyncio.create_task(self._note_again_and_again())
        # Whatever changed between the page and this moment was said to nobody.
        await self._send(await self._render(None))

    async def disconnect(self, code: int) -> None:
        """Leaves the group, and whatever was under way for this page."""
        for task in (self.noting, self.answering):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        if hasattr(self, "group"):
            await self.channel_layer.group_discard(self.group, self.channel_name)

    async def changed(self, hint: dict[str, str]) -> None:
        """Sends the fragment that a hint is about, soon.

        Hints that come while one is rendered wait, one for each subject: the row is as new for the last of them as
        for all, and a busy process falls behind by one rendering instead of by all.
        """
        self.waiting[hint["kind"], hint["id"]] = hint
        if self.answering is None or self.answering.done():
            self.answering = asyncio.create_task(self._answer())

    async def _answer(self) -> None:
        while self.waiting:
            subject = next(iter(self.waiting))
            await self._send(await self._render(self.waiting.pop(subject)))

    async def _send(self, html: str | None) -> None:
        if html is None:
            await self.close()
        elif html:
            await self.send(text_data=html)

    @database_sync_to_async  # type: ignore[untyped-decorator]
    def _authorize(self) -> bool:
        if not self._is_admitted():
            return False
        with scope.inside(self.membership.workspace):
            group = self.find_group(**self.scope["url_route"]["kwargs"])
        if group is None:
            return False
        self.group = group
        return True

    async def _note_again_and_again(self) -> None:
        """Keeps the poller interested while the page is open."""
        while True:
            await self._note()
            await asyncio.sleep(watching.NOTE_SECONDS / 2)

    @database_sync_to_async  # type: ignore[untyped-decorator]
    def _note(self) -> None:
        with scope.inside(self.membership.workspace):
            self.note()

    def _is_still_admitted(self) -> bool:
        """Asks anew: the session may have ended since, here or from another device, or the account may be closed."""
        request, known = HttpRequest(), self.scope["session"]
        request.session = known.__class__(known.session_key)
        self.scope["user"] = get_user(request)
        return self._is_admitted()

    def _is_admitted(self) -> bool:
        membership = admitted(self.scope["user"], self.scope["url_route"]["kwargs"]["slug"])
        if membership is not None:
            self.membership = membership
        return membership is not None

    @database_sync_to_async  # type: ignore[untyped-decorator]
    def _render(self, hint: dict[str, str] | None) -> str | None:
        # A role may have changed since the socket was opened, and who was removed hears nothing more.
        if hint is not None and not self._is_still_admitted():
            return None
        user = self.scope["user"]
        with scope.person(user), scope.inside(self.membership.workspace), as_seen_by(user):
            return self.render(hint)

    def _fragment(self, template: str, context: dict[str, Any]) -> str:
        # What the context processors give to a page; there is no request here.
        frame = {
            "workspace": self.membership.workspace,
            **rights(self.membership),
            **credit_frame(self.membership),
            "is_cpu_engine": settings.RESTORATION_ENGINE == "cpu",
            "user": self.scope["user"],
            # Forms in a fragment are posted like those of the page; the cookie's secret is a valid token.
            "csrf_token": self.scope["cookies"].get(settings.CSRF_COOKIE_NAME, ""),
        }
        return render_to_string(template, frame | context)

    @abc.abstractmethod
    def find_group(self, **kwargs: Any) -> str | None:
        """Returns the group to join, None when the person may not see it."""

    def note(self) -> None:
        """Tells the poller that somebody looks; a page without jobs has nothing to tell."""

    @abc.abstractmethod
    def render(self, hint: dict[str, str] | None) -> str:
        """Returns the fragment for a hint, or for the beginning."""


class WorkspaceConsumer(PageConsumer):
    """For the workspace's page and list: the row or the card that changed."""

    def find_group(self, **kwargs: Any) -> str | None:
        return notifications.workspace_group(self.membership.workspace_id)

    def note(self) -> None:
        watching.note_workspace(self.membership.workspace_id)

    def render(self, hint: dict[str, str] | None) -> str:
        if hint is None:
            return ""
        workspace = self.membership.workspace
        if hint["kind"] == "video":
            video = Video.objects.for_workspace(workspace).present().filter(pk=hint["id"]).first()
            if video is None:
                # What the page does not show makes it fetch its list anew.
                return f'<div id="video-{hint["id"]}-deleted"></div>'
            return self._fragment("components/video_card.html", {"video": video})
        mine = Restoration.objects.for_workspace(workspace).select_related("video", "workspace")
        restoration = mine.filter(pk=hint["id"]).first()
        return (
            self._fragment("components/restoration_row.html", {"restoration": restoration})
            if restoration
            else ""
        )


class RestorationConsumer(PageConsumer):
    """For the page of one restoration: its status."""

    def find_group(self, **kwargs: Any) -> str | None:
        restoration_id = kwargs["restoration_id"]
        self.mine = Restoration.objects.for_workspace(self.membership.workspace).filter(pk=restoration_id)
        return notifications.restoration_group(restoration_id) if self.mine.exists() else None

    def note(self) -> None:
        watching.note_restoration(self.scope["url_route"]["kwargs"]["restoration_id"])

    def render(self, hint: dict[str, str] | None) -> str:
        restoration = self.mine.select_related("video", "workspace").get()
        context = restoration_context(restoration)
        return self._fragment("restorations/restoration_detail.html#status", context)


class VideoConsumer(PageConsumer):
    """For the page of one video: what inspection found."""

    def find_group(self, **kwargs: Any) -> str | None:
        video_id = kwargs["video_id"]
        self.mine = Video.objects.for_workspace(self.membership.workspace).present().filter(pk=video_id)
        return notifications.video_group(video_id) if self.mine.exists() else None

    def render(self, hint: dict[str, str] | None) -> str:
        video = self.mine.select_related("workspace").first()
        return self._fragment("restorations/video_detail.html#video", video_context(video)) if video else ""
