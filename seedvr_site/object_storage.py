"""Where videos and results lie: a folder of this machine, or with `S3_BUCKET` a bucket of S3, R2 or the like."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from seedvr_site import env

#: S3 refuses smaller parts, except for the last one of a file.
S3_MIN_PART_BYTES = 5 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectStorage:
    """The settings of one store."""

    #: For `STORAGES["default"]`.
    backend: dict[str, Any]
    min_part_bytes: int
    #: Where browsers and workers reach the bucket; empty for this machine's folder, which the site serves.
    public_url: str = ""
    part_checksums: bool = True

    @property
    def origins(self) -> list[str]:
        """What the content security policy has to allow beside the site itself."""
        if not self.public_url:
            return []
        parts = urlsplit(self.public_url)
        return [f"{parts.scheme}://{parts.netloc}"]


def from_environment(folder: Path) -> ObjectStorage:
    """Reads the environment; `folder` is for an installation without a bucket."""
    bucket = env.text("S3_BUCKET", "")
    if not bucket:
        backend = {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": folder},
        }
        return ObjectStorage(backend=backend, min_part_bytes=2**18)
    region = env.text("S3_REGION", "auto")
    endpoint = env.text("S3_ENDPOINT_URL", "")
    if not endpoint and region == "auto":
        raise ImproperlyConfigured(
            "S3_REGION is not set; without S3_ENDPOINT_URL the bucket is at AWS, which needs its region"
        )
    endpoint = (endpoint or f"https://s3.{region}.amazonaws.com").rstrip("/")
    return ObjectStorage(
        backend=s3_backend(
            bucket=bucket,
            endpoint=endpoint,
            region=region,
            access_key=env.text("S3_ACCESS_KEY_ID"),
            secret_key=env.text("S3_SECRET_ACCESS_KEY"),
        ),
        min_part_bytes=S3_MIN_PART_BYTES,
        public_url=env.text("S3_PUBLIC_ENDPOINT_URL", endpoint).rstrip("/"),
        part_checksums=env.flag("S3_PART_CHECKSUMS", True),
    )


def s3_backend(
    *, bucket: str, endpoint: str, region: str, access_key: str, secret_key: str
) -> dict[str, Any]:
    """Returns django-storages' settings for one bucket."""
    # Imported late: an installation without a bucket never needs boto3.
    from botocore.config import Config

    config = Config(
        signature_version="s3v4",
        # Buckets need no host name of their own then, which R2 and the others do not give them.
        s3={"addressing_style": "path"},
        connect_timeout=5,
        read_timeout=60,
        retries={"mode": "standard", "max_attempts": 4},
        # boto3 adds checksums of its own to every request since 1.36, which R2 and others refuse in places.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    options = {
        "bucket_name": bucket,
        "endpoint_url": endpoint,
        "region_name": region,
        "access_key": access_key,
        "secret_key": secret_key,
        "default_acl": None,
        "file_overwrite": True,
        "client_config": config,
    }
    return {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}
