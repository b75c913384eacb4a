"""Mounts pages, stored objects and sockets on one ASGI server."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "seedvr_site.settings.dev")
pages = get_asgi_application()

# Imported after Django is set up: these modules import models.
from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402
from django.urls import re_path  # noqa: E402

from restorations.object_server import application as stored_objects  # noqa: E402
from restorations.routing import websocket_urlpatterns  # noqa: E402

application = ProtocolTypeRouter(
    {
        # re_path is typed for views; Channels puts ASGI applications there.
        "http": URLRouter([re_path(r"^objects/", stored_objects), re_path(r"", pages)]),  # type: ignore[arg-type]
        "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns))),
    }
)
