"""The sockets' addresses; they mirror the pages'."""

from django.urls import path

from restorations import consumers

websocket_urlpatterns = [
    path("ws/w/<slug:slug>/", consumers.WorkspaceConsumer.as_asgi(), name="ws-workspace"),
    path(
        "ws/w/<slug:slug>/restorations/<uuid:restoration_id>/",
        consumers.RestorationConsumer.as_asgi(),
        name="ws-restoration",
    ),
    path("ws/w/<slug:slug>/videos/<uuid:video_id>/", consumers.VideoConsumer.as_asgi(), name="ws-video"),
]
