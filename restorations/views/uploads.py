"""The upload protocol for scripts: begin, sign parts, list parts, complete, abort. JSON in and out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import wraps
from typing import Any, Final
from uuid import UUID

from django.http import HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.access import WorkspaceRequest, workspace_editor
from accounts.rate_limits import rate_limited
from restorations import uploads
from restorations.models import Upload

#: Base64 of 32 bytes.
_SHA256: Final = re.compile(r"[A-Za-z0-9+/]{43}=")


def _refusals_as_json(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Answers 400 with the sentence when a file or a body cannot be taken, 409 when parts are missing."""

    @wraps(view)
    def wrapped(request: WorkspaceRequest, **kwargs: Any) -> HttpResponse:
        try:
            return view(request, **kwargs)
        except uploads.PartsMissing as exc:
            # The client asks anew which parts are there, and sends the others.
            return JsonResponse({"error": str(exc)}, status=409)
        except uploads.UploadRefused as exc:
            return JsonResponse({"error": str(exc)}, status=400)
        except (KeyError, TypeError, ValueError):
            return JsonResponse({"error": _("This request is not what the upload expects.")}, status=400)

    return wrapped


def _upload(request: WorkspaceRequest, upload_id: UUID) -> Upload:
    return get_object_or_404(Upload.objects.for_workspace(request.workspace), pk=upload_id)


@require_POST
@workspace_editor
@rate_limited("upload")
@_refusals_as_json
def upload_create(request: WorkspaceRequest) -> HttpResponse:
    """Begins an upload, or finds the one that the same person began for the same file."""
    wanted = json.loads(request.body)
    upload, is_new = uploads.begin(
        workspace=request.workspace,
        user=request.user,
        file_name=str(wanted["file_name"]),
        size_bytes=int(wanted["size_bytes"]),
        has_checksums=wanted.get("checksums") == "sha256",
    )
    slug = request.workspace.slug
    urls = {
        name: reverse(f"upload-{name}", args=[slug, upload.pk]) for name in ("parts", "complete", "abort")
    }
    answer = {
        "upload_id": str(upload.pk),
        "key": upload.storage_key,
        "part_bytes": upload.part_bytes,
        "urls": urls,
    }
    return JsonResponse(answer, status=201 if is_new else 200)


@require_safe
@workspace_editor
@_refusals_as_json
def upload_parts(request: WorkspaceRequest, upload_id: UUID) -> HttpResponse:
    """Lists the parts that arrived, so that only the others are sent after an interruption."""
    upload = _upload(request, upload_id)
    parts = [part.to_json() for part in uploads.parts_of(upload)]
    return JsonResponse({"parts": parts, "is_joined": not parts and uploads.is_joined(upload)})


@require_POST
@workspace_editor
@_refusals_as_json
def upload_part(request: WorkspaceRequest, upload_id: UUID, number: int) -> HttpResponse:
    """Signs the address for one part; with the part's SHA-256 in the body, only those bytes are taken there."""
    wanted = json.loads(request.body or b"{}")
    sha256 = str(wanted.get("sha256", ""))
    if sha256 and not _SHA256.fullmatch(sha256):
        raise ValueError("sha256 is not the Base64 of 32 bytes")
    signed = uploads.address_of_part(_upload(request, upload_id), number, sha256=sha256)
    return JsonResponse({"url": signed.url, "headers": signed.headers})


@require_POST
@workspace_editor
@_refusals_as_json
def upload_complete(request: WorkspaceRequest, upload_id: UUID) -> HttpResponse:
    """Joins the parts and makes the video."""
    upload = _upload(request, upload_id)
    named = json.loads(request.body)["parts"]
    parts = sorted((int(part["PartNumber"]), str(part["ETag"]).strip('"')) for part in named)
    video = uploads.complete(upload, parts)
    page = reverse("video-detail", args=[request.workspace.slug, video.pk])
    return JsonResponse({"video_url": page, "location": page}, status=201)


@require_http_methods(["DELETE"])
@workspace_editor
def upload_abort(request: WorkspaceRequest, upload_id: UUID) -> HttpResponse:
    """Forgets an unfinished upload; one that became a video stays."""
    upload = get_object_or_404(Upload.objects.for_workspace(request.workspace).unfinished(), pk=upload_id)
    uploads.abort(upload)
    return HttpResponse(status=204)
