"""RunPod's webhook: it wakes us, and what it says is asked again."""

from __future__ import annotations

import json

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from accounts import scope
from restorations import dispatch
from restorations.doorbells import Doorbell, ring
from restorations.models import Attempt


@csrf_exempt
@require_POST
@login_not_required
@scope.sees_everything
def runpod_webhook(request: HttpRequest, token: str) -> HttpResponse:
    """Rings for a check of the attempt that this unguessable address belongs to.

    The body is not signed, so nothing in it is believed but the job's id, and that only where the answer to
    /run was lost: whoever knows the token was told it with the job.
    """
    attempt = get_object_or_404(Attempt, webhook_token=token)
    if attempt.status == Attempt.Status.UNKNOWN and (runpod_id := _job_id(request.body)):
        dispatch.adopt(attempt, runpod_id)
    ring(Doorbell.CHECK_ATTEMPT, attempt_id=attempt.pk)
    return HttpResponse("ok", content_type="text/plain")


def _job_id(body: bytes) -> str:
    try:
        runpod_id = json.loads(body)["id"]
    except (ValueError, KeyError, TypeError):
        return ""
    return runpod_id if isinstance(runpod_id, str) and len(runpod_id) <= 128 else ""
