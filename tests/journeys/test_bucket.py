"""The product on a bucket: a closed tab loses one part of an upload, a storage that goes away loses nothing."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Request, Route, expect

from tests import samples
from tests.journeys.conftest import Person
from tests.services.processes import free_port
from tests.services.product import ROOT, Product, product
from tests.services.seaweedfs import ACCESS_KEY, SECRET_KEY, SeaweedFS
from tests.services.smtp import Mailbox

pytestmark = [pytest.mark.journey, pytest.mark.timeout(240)]
#: S3 takes no smaller parts.
PART_BYTES = 5 * 2**20
#: Milliseconds for what takes moments on an idle machine.
PATIENCE = 30_000


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """The server that the bucket is on."""
    running = SeaweedFS(tmp_path_factory.mktemp("seaweedfs"))
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def bucket_site(
    tmp_path_factory: pytest.TempPathFactory, mails: Mailbox, storage: SeaweedFS
) -> Iterator[tuple[Product, str]]:
    """The product with its objects in a bucket that `configure_bucket` made."""
    var_dir, port, address = tmp_path_factory.mktemp("var"), free_port(), storage.address
    environment = {
        "EMAIL_HOST": "127.0.0.1",
        "EMAIL_PORT": str(mails.port),
        "UPLOAD_PART_BYTES": str(PART_BYTES),
        "S3_BUCKET": "journey",
        "S3_ENDPOINT_URL": address,
        "S3_ACCESS_KEY_ID": ACCESS_KEY,
        "S3_SECRET_ACCESS_KEY": SECRET_KEY,
    }
    done = subprocess.run(
        [sys.executable, "manage.py", "configure_bucket", "--create"],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "VAR_DIR": str(var_dir),
            "SITE_URL": f"http://127.0.0.1:{port}",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with product(var_dir, port=port, environment=environment) as running:
        yield running, address


def large_video(folder: Path) -> Path:
    """Returns a real video of three parts: MP4 readers skip boxes that are `free`."""
    content = samples.path("pal_25.mp4").read_bytes()
    padding = 2 * PART_BYTES + 1000
    file = folder / "holiday.mp4"
    file.write_bytes(content + struct.pack(">I4s", padding, b"free") + bytes(padding - 8))
    return file


def test_from_the_upload_to_the_download(
    browser: Browser, bucket_site: tuple[Product, str], mails: Mailbox, tmp_path: Path
) -> None:
    site, bucket = bucket_site
    source = large_video(tmp_path)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(20_000)
    alice = Person(context, site, mails)
    alice.sign_up()

    sent: list[tuple[str, int]] = []

    def note(request: Request) -> None:
        if request.method == "PUT":
            sent.append((request.url.partition("?")[0], int(re.findall(r"partNumber=(\d+)", request.url)[0])))

    # The tab is closed when the first part has arrived and the second cannot. (A request that is merely held would
    # be let go on as the page closes.)
    alice.page.route(re.compile("partNumber=2"), lambda route: route.abort("connectionreset"))
    with alice.page.expect_event("requestfailed", lambda request: "partNumber=2" in request.url):
        alice.choose(source)
    alice.page.close(run_before_unload=False)

    sent.clear()
    alice.problems.clear()  # the part that could not arrive was one
    alice.page = alice.open_page()
    alice.page.on("request", note)
    alice.go("/")
    alice.upload(source)
    # A try of the second part may get through while the page closes.
    assert [number for _, number in sent] in ([2, 3], [3]), "only what had not arrived is sent again"
    assert all(url.startswith(f"{bucket}/journey/") for url, _ in sent), "bytes go past the site"

    video_page = alice.page.url
    alice.restore()
    alice.wait_for_status("succeeded")
    # Both players seek: they get ranges out of the bucket.
    for video in alice.page.locator("video").all():
        expect(video).to_have_attribute("src", re.compile(f"^{re.escape(bucket)}/journey/"))
        assert video.evaluate(
            """async (video) => {
                 video.preload = "auto"; video.load();
                 await new Promise((done, fail) => { video.onloadeddata = done; video.onerror = fail; });
                 video.currentTime = 1.5;
                 await new Promise((done) => { video.onseeked = done; });
                 return video.currentTime;
               }"""
        ) == pytest.approx(1.5, abs=0.1)
    with alice.page.expect_download() as download:
        alice.page.get_by_role("link", name=re.compile("Download")).first.click()
    assert re.fullmatch(r"holiday_720p_seed\d+\.mp4", download.value.suggested_filename)

    # The same again is there already; with another seed it is another one.
    alice.page.goto(f"{video_page}?preset=720p")
    quote = alice.page.locator("#quote")
    expect(quote).to_contain_text("You already have this result")
    expect(quote.get_by_role("button")).to_have_count(0)
    alice.page.get_by_text("More settings", exact=True).click()
    alice.page.get_by_label("Seed").fill("7")
    expect(quote.get_by_role("button")).to_contain_text("Restore for")
    assert alice.problems == []
    context.close()


def test_a_storage_that_goes_away_and_comes_back_loses_nothing(
    browser: Browser,
    bucket_site: tuple[Product, str],
    storage: SeaweedFS,
    mails: Mailbox,
    tmp_path: Path,
) -> None:
    site, _bucket = bucket_site
    source = large_video(tmp_path)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(20_000)
    bob = Person(context, site, mails)
    bob.sign_up()
    home, page = bob.page.url, bob.page
    sent: list[int] = []

    def note(request: Request) -> None:
        if request.method == "PUT":
            sent.append(int(re.findall(r"partNumber=(\d+)", request.url)[0]))

    def without_storage(route: Route) -> None:
        storage.stop()
        route.continue_()

    # It is back in time: the upload goes on by itself.
    page.on("request", note)
    page.route(re.compile("partNumber=2"), without_storage, times=1)
    row = page.locator("[data-upload-list] > li")
    bob.choose(source)
    expect(row).to_contain_text(
        "The storage does not answer at the moment. What has arrived is kept", timeout=PATIENCE
    )
    storage.start()
    page.wait_for_url(re.compile(r"/videos/[0-9a-f-]+/$"), timeout=2 * PATIENCE)
    assert (sent.count(1), sent.count(3)) == (1, 1), sent

    bob.restore()
    bob.wait_for_status("succeeded")
    result = page.url

    # It stays away: a reason and a button.
    sent.clear()
    page.clock.install()
    page.goto(home)
    page.route(re.compile("partNumber=2"), without_storage, times=1)
    bob.choose(source.rename(tmp_path / "other.mp4"))
    expect(row).to_contain_text("The storage does not answer at the moment", timeout=PATIENCE)
    page.clock.fast_forward("06:00")
    reason = "The storage has not answered for five minutes. What has arrived is kept"
    expect(row).to_contain_text(reason, timeout=PATIENCE)

    # Meanwhile a player that has nothing in its cache says so, and so does a download.
    elsewhere = browser.new_context(storage_state=context.storage_state())
    player, download = elsewhere.new_page(), elsewhere.new_page()
    player.goto(result)
    notice = player.locator("[data-playback-notice]")
    expect(notice).to_contain_text("The storage does not answer at the moment", timeout=PATIENCE)
    download.goto(result)
    download.get_by_role("link", name=re.compile("Download")).first.click()
    expect(download.locator("h1")).to_have_text("The storage does not answer", timeout=PATIENCE)

    # It is back: the rest is sent, the player comes back by itself, and the download's page leads to the file.
    storage.start()
    row.get_by_role("button", name="Try again").click()
    page.wait_for_url(re.compile(r"/videos/[0-9a-f-]+/$"), timeout=2 * PATIENCE)
    assert (sent.count(1), sent.count(3)) == (1, 1), sent
    expect(notice).to_be_hidden(timeout=PATIENCE)
    expect(player.locator("[data-after]")).to_have_js_property("readyState", 4, timeout=PATIENCE)
    with download.expect_download() as downloaded:
        download.get_by_role("link", name="Try again").click()
    assert downloaded.value.path().stat().st_size > 0
    elsewhere.close()
    context.close()
