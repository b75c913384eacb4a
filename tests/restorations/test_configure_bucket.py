"""`manage.py configure_bucket` on a real S3-compatible server: what it sets, and what its check notices."""

import io

import httpx
import pytest
from django.core.management import CommandError, call_command

from restorations import objects
from seedvr_site.object_storage import s3_backend
from tests.services.seaweedfs import ACCESS_KEY, SECRET_KEY


def run(*options):
    out = io.StringIO()
    try:
        call_command("configure_bucket", *options, stdout=out, no_color=True)
    except CommandError as exc:
        return out.getvalue(), str(exc)
    return out.getvalue(), ""


def test_without_a_bucket_there_is_nothing_to_set_up():
    assert "S3_BUCKET is not set" in run()[1]


@pytest.fixture
def new_bucket(bucket, settings, request):
    """A bucket that does not exist yet."""
    backend = s3_backend(
        bucket=f"new-{abs(hash(request.node.name)) % 10**9}",
        endpoint=bucket,
        region="us-east-1",
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
    )
    settings.STORAGES = {**settings.STORAGES, "default": backend}
    return objects.store()


@pytest.mark.services
def test_a_new_bucket_is_set_up_and_works(new_bucket):
    lines, error = run("--create", "--origin", "https://www.restore.example")
    assert error == ""
    assert "FAILED" not in lines
    assert "pages of http://127.0.0.1:8000 may upload" in lines
    assert "pages of https://www.restore.example may upload" in lines
    assert list(objects.walk()) == []
    assert list(objects.multiparts()) == []


@pytest.mark.services
def test_a_second_run_keeps_rules_of_others(new_bucket):
    run("--create")
    others = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 9}}
    rules = new_bucket.client.get_bucket_lifecycle_configuration(Bucket=new_bucket.bucket)["Rules"]
    new_bucket.client.put_bucket_lifecycle_configuration(
        Bucket=new_bucket.bucket, LifecycleConfiguration={"Rules": [*rules, others]}
    )
    assert run()[1] == ""
    rules = new_bucket.client.get_bucket_lifecycle_configuration(Bucket=new_bucket.bucket)["Rules"]
    assert sorted(rule["ID"] for rule in rules) == ["theirs", "unfinished-uploads"]


@pytest.mark.services
def test_the_check_notices_what_is_missing(new_bucket):
    new_bucket.client.create_bucket(Bucket=new_bucket.bucket)
    lines, error = run("--check")
    assert "FAILED unfinished uploads are deleted" in lines
    assert "FAILED pages elsewhere may not upload" in lines
    assert "ok     a part with a wrong checksum is refused" in lines
    assert "problems" in error


@pytest.mark.services
def test_a_bucket_out_of_reach_is_told_without_an_address(bucket, settings):
    backend = s3_backend(
        bucket="videos", endpoint="http://127.0.0.1:9", region="us-east-1", access_key="a", secret_key="b"
    )
    settings.STORAGES = {**settings.STORAGES, "default": backend}
    lines, error = run("--check")
    assert "FAILED the site can write and read: StorageUnavailable" in lines
    assert "Signature" not in lines + error


@pytest.mark.services
def test_a_stranger_gets_nothing(bucket):
    objects.save("w1/sources/secret.mp4", io.BytesIO(b"secret"))
    unsigned = objects.address_to_read("w1/sources/secret.mp4").partition("?")[0]
    assert httpx.get(unsigned).status_code == 403
