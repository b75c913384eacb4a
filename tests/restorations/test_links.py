"""Imports from links: what is fetched, and what is refused with which sentence (U6)."""

from __future__ import annotations

import socket
import ssl
import threading
from http.server import ThreadingHTTPServer
from urllib.parse import quote

import pytest
from django.urls import reverse
from django.utils import timezone

from restorations import objects, repair, retention
from restorations.links import fetching, imports, policy
from restorations.links.fetching import Held, Rules, fetch
from restorations.links.problems import LinkRefused, Problem
from restorations.models import LinkImport, Video
from tests.certificates import certificate_for_loopback
from tests.restorations.odd_site import VIDEO, Site, odd_site


@pytest.fixture
def site():
    """A site on this machine; the address of one of its files."""
    with odd_site() as address:
        yield address


def rules(**more):
    return Rules(
        **{
            "is_allowed": policy.loopback_too,
            "max_bytes": 10**7,
            "schemes": ("http", "https"),
            "pace_seconds": 1.0,
            **more,
        }
    )


def fetched(link, **more):
    """Returns name and content of what is under a link, or the problem with it."""
    try:
        with fetch(link, rules(**more)) as answer:
            return answer.file_name, b"".join(answer.chunks)
    except LinkRefused as refusal:
        return refusal.problem


# --- Which addresses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::5db8:d822"]
)
def test_public_addresses_may_be_called(address):
    assert policy.public_only(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "198.18.0.1", "192.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1",
        "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::",
        "2001:0:4136:e378:8000:63bf:80ff:fffe", "localhost", "", "0x7f.1",
    ],
)  # fmt: skip
def test_private_addresses_may_not(address):
    assert not policy.public_only(address)


def test_the_sites_own_policy_refuses_this_machine(settings):
    assert imports.rules().is_allowed is policy.public_only
    assert imports.rules().schemes == ("https",)
    settings.IMPORT_ADDRESS_POLICY = "restorations.links.policy.loopback_too"
    assert imports.rules().is_allowed is policy.loopback_too


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_a_link_to_this_machine_is_refused_and_nothing_is_called(site, host):
    assert fetched(site("video/a.mp4", host), is_allowed=policy.public_only) == Problem.PRIVATE
    assert Site.calls == []


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1"])
def test_other_ways_to_write_this_machine_are_refused(site, host):
    """What the system makes of a number is what is checked, not how it was written."""
    there = {"look_up": lambda name, _port: [socket.inet_ntoa(socket.inet_aton(name))]}
    assert fetched(site("video/a.mp4", host), is_allowed=policy.public_only, **there) == Problem.PRIVATE
    assert Site.calls == []


def test_a_name_that_changes_its_address_is_called_where_it_was_checked(site):
    """DNS rebinding: the name is public when it is checked and ours when it is used."""
    answers = [["127.0.0.1"], ["10.0.0.1"]]
    link = site("video/a.mp4", "rebind.example")
    asked = []

    def look_up(host, port):
        asked.append(host)
        return answers[len(asked) - 1]

    name, content = fetched(link, look_up=look_up)
    assert (name, content) == ("a.mp4", VIDEO)
    assert asked == ["rebind.example"], "looked up once, and connected to that answer"
    assert fetched(link, look_up=lambda *_: ["10.0.0.1"]) == Problem.PRIVATE


def test_one_private_address_among_public_ones_is_a_trap():
    look_up = lambda *_: ["93.184.216.34", "192.168.1.1"]  # noqa: E731
    assert fetched("https://trap.example/a.mp4", look_up=look_up) == Problem.PRIVATE


@pytest.mark.parametrize(
    ("path", "problem"),
    [("inside", Problem.PRIVATE), ("metadata", Problem.PRIVATE), ("file", Problem.NOT_HTTPS)],
)
def test_a_redirect_into_a_private_network_is_refused(site, path, problem):
    calls = []

    def is_allowed(address):
        calls.append(address)
        return len(calls) == 1  # the first site is public, wherever it leads is not

    there = {"look_up": lambda name, _port: ["127.0.0.1" if name == "localhost" else name]}
    assert fetched(site(path), is_allowed=is_allowed, **there) == problem
    assert Site.calls == [f"/{path}"]


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        ("", Problem.NOT_A_LINK), ("film.mp4", Problem.NOT_A_LINK), ("https://", Problem.NOT_A_LINK),
        ("https://exa mple.com/a", Problem.NOT_A_LINK), ("https://example.com:99999/a", Problem.NOT_A_LINK),
        ("https://user:secret@example.com/a.mp4", Problem.NOT_A_LINK), ("https://example.com:22/", Problem.NOT_A_LINK),
        ("https://example.com/\r\nHost: evil", Problem.NOT_A_LINK), ("https://a/" + "x" * 4000, Problem.NOT_A_LINK),
        ("http://example.com/a.mp4", Problem.NOT_HTTPS), ("ftp://example.com/a.mp4", Problem.NOT_HTTPS),
        ("file://host/etc/passwd", Problem.NOT_HTTPS), ("gopher://example.com/", Problem.NOT_HTTPS),
    ],
)  # fmt: skip
def test_what_is_no_link_is_refused_at_once(link, problem):
    with pytest.raises(LinkRefused) as caught:
        fetching.checked(link, rules(schemes=("https",)))
    assert caught.value.problem == problem


# --- What comes -----------------------------------------------------------------------------------------------


def test_a_file_comes_whole_under_its_name(site):
    assert fetched(site("video/holiday%20film.mp4?X-Amz-Signature=secret")) == ("holiday film.mp4", VIDEO)
    assert fetched(site("named")) == ("föhn am see.mp4", VIDEO)
    assert fetched(site("redirect")) == ("film.mp4", VIDEO)


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ("attachment; filename*=UTF-8''a.mp4; filename*0=b.mp4", "told"),
        ("attachment; filename*=idna''%ff.mp4", "told"),
        ("attachment; filename=föhn.mp4", "föhn.mp4"),
        ("attachment; filename*=UTF-8''f%C3%B6%00h%0An%E2%80%AE.mp4", "föhn.mp4"),
    ],
)
def test_a_name_in_an_odd_form_is_read_or_left_out(site, disposition, name):
    assert fetched(f"{site('told')}?{quote(disposition)}") == (name, VIDEO)


def test_letters_in_a_redirect_are_sent_as_they_came(site):
    assert fetched(site("letters")) == ("föhn am see.mp4", VIDEO)
    assert Site.calls == ["/letters", "/video/f%C3%B6hn%20am%20see.mp4"]


HELD = Held(1000, len(VIDEO), '"this"')


def rest(link, held=HELD, **more):
    """Returns where the answer to the request for the rest begins and what comes, or the problem with it."""
    try:
        with fetch(link, rules(**more), held) as answer:
            return answer.start, b"".join(answer.chunks)
    except LinkRefused as refusal:
        return refusal.problem


@pytest.mark.parametrize("path", ["rest", "hop", "unsized"])
def test_the_rest_of_a_file_is_asked_for_and_comes(site, path):
    assert rest(site(path)) == (1000, VIDEO[1000:])
    assert set(Site.asked_for) == {("bytes=1000-", '"this"')}, "behind a redirect as well"


@pytest.mark.parametrize("path", ["video", "elsewhere", "longer", "nowhere", "outside", "changed"])
def test_what_is_not_the_rest_of_this_file_begins_anew(site, path):
    assert rest(site(path)) == (0, VIDEO)


@pytest.mark.parametrize(
    ("path", "more", "problem"),
    [
        ("piece", {}, Problem.BROKEN_OFF), ("expired", {}, Problem.EXPIRED), ("missing", {}, Problem.NOT_FOUND),
        ("busy", {}, Problem.UNREACHABLE), ("page", {}, Problem.WEB_PAGE),
        ("metadata", {"look_up": lambda name, _port: [name]}, Problem.PRIVATE),
        ("rest", {"max_bytes": 2000}, Problem.TOO_LARGE), ("rest", {"is_allowed": policy.public_only}, Problem.PRIVATE),
        ("endless", {}, Problem.TOO_LARGE), ("drip", {}, Problem.TOO_SLOW), ("loop", {}, Problem.REDIRECTS),
        ("nonsense", {}, Problem.NOT_A_LINK),
    ],
)  # fmt: skip
def test_the_rest_is_held_to_the_same_rules(site, path, more, problem):
    assert rest(site(path), **more) == problem


@pytest.mark.parametrize(
    ("etag", "changed", "sent", "validator"),
    [
        ('"abc"', "Mon, 02 Nov 2026 10:00:00 GMT", "Mon, 02 Nov 2026 11:00:00 GMT", '"abc"'),
        ('W/"abc"', "Mon, 02 Nov 2026 10:00:00 GMT", "Mon, 02 Nov 2026 11:00:00 GMT", ""),
        ("-", "Mon, 02 Nov 2026 10:00:00 GMT", "Mon, 02 Nov 2026 11:00:00 GMT", "Mon, 02 Nov 2026 10:00:00 GMT"),
        ("-", "Mon, 02 Nov 2026 11:00:00 GMT", "Mon, 02 Nov 2026 11:00:00 GMT", ""),
        ("-", "Mon, 02 Nov 2026 10:00:00 GMT", "-", ""), ("-", "yesterday", "today", ""), ("abc", "-", "-", ""),
        (f'"{"a" * 300}"', "-", "-", ""), ("-", "-", "-", ""),
    ],
)  # fmt: skip
def test_only_what_names_exactly_one_state_of_a_file_validates_its_rest(site, etag, changed, sent, validator):
    link = site("/".join(["dated", *(quote(each, safe="") for each in (etag, changed, sent))]))
    with fetch(link, rules()) as answer:
        assert answer.validator == validator


def test_a_pause_after_a_quick_start_is_no_drip(site):
    assert fetched(site("pause"), pace_seconds=0.5)[1] == VIDEO


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("page", Problem.WEB_PAGE), ("disguised", Problem.WEB_PAGE), ("packed", Problem.ENCODED),
        ("nothing", Problem.EMPTY), ("missing", Problem.NOT_FOUND), ("expired", Problem.FORBIDDEN),
        ("busy", Problem.UNREACHABLE), ("huge", Problem.TOO_LARGE), ("endless", Problem.TOO_LARGE),
        ("liar", Problem.BROKEN_OFF), ("loop", Problem.REDIRECTS), ("drip", Problem.TOO_SLOW),
        ("head", Problem.TOO_SLOW), ("silence", Problem.TOO_SLOW),
    ],
)  # fmt: skip
def test_each_bad_answer_has_its_sentence(site, path, problem):
    assert fetched(site(path)) == problem


def test_a_site_that_is_not_there_and_a_name_that_is_none():
    assert fetched("http://127.0.0.1:9/a.mp4") == Problem.NOT_A_LINK
    assert fetched("http://127.0.0.1:1999/a.mp4") == Problem.UNREACHABLE

    def unknown(*_):
        raise LinkRefused(Problem.UNKNOWN_SITE)

    assert fetched("https://nowhere.example/", look_up=unknown) == Problem.UNKNOWN_SITE


def test_certificates_are_checked_against_the_name(site, tmp_path, monkeypatch):
    """The connection goes to a checked address, the certificate is for the name."""
    authority, chain = certificate_for_loopback(tmp_path, name="films.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.daemon_threads, server.handle_error = True, lambda *_args: None
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        link = f"https://films.example:{server.server_address[1]}/video/a.mp4"
        there = {"look_up": lambda *_: ["127.0.0.1"]}
        assert fetched(link, **there) == Problem.UNTRUSTED
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        assert fetched(link, **there) == ("a.mp4", VIDEO)
        assert fetched(link.replace("films", "other"), **there) == Problem.UNTRUSTED
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("problem", Problem)
def test_every_problem_is_a_sentence(problem):
    assert str(problem.label).endswith(".")


# --- The use case ---------------------------------------------------------------------------------------------


@pytest.fixture
def open_policy(settings):
    """A site that may import from this machine."""
    settings.IMPORT_ADDRESS_POLICY = "restorations.links.policy.loopback_too"
    settings.IMPORT_SCHEMES = ["http", "https"]


@pytest.mark.django_db
@pytest.mark.usefixtures("open_policy")
def test_a_link_becomes_a_video(site, workspace, alice, http):
    begun = imports.begin(workspace=workspace, user=alice, link=site("video/film.mp4?signature=secret"))
    for _ in range(2):
        imports.run(begun.pk)
    video = Video.objects.get()
    begun.refresh_from_db()
    assert (begun.status, begun.video, begun.link, begun.received_bytes) == ("done", video, "", len(VIDEO))
    assert (video.file_name, video.size_bytes, video.created_by) == ("film.mp4", len(VIDEO), alice)
    assert objects.read_bytes(video.storage_key) == VIDEO
    assert video.sha256 == objects.sha256(video.storage_key)
    assert Site.calls == ["/video/film.mp4?signature=secret"], "fetched once"


@pytest.mark.django_db
@pytest.mark.usefixtures("open_policy")
def test_a_refused_link_says_why_on_the_page_and_leaves_nothing(
    site, workspace, alice, alice_client, http, settings
):
    settings.UPLOAD_MAX_BYTES = 20 * 2**20
    begun = imports.begin(workspace=workspace, user=alice, link=site("endless"))
    imports.run(begun.pk)
    begun.refresh_from_db()
    assert (begun.status, begun.problem, begun.link) == ("failed", "too_large", "")
    assert not objects.exists(begun.storage_key)
    assert begun.storage_key not in {upload.key for upload in objects.multiparts()}
    page = alice_client.get(workspace.get_absolute_url()).content.decode()
    assert str(Problem.TOO_LARGE.label) in page
    assert "every 1s" not in page, "nothing is under way"


@pytest.mark.django_db
@pytest.mark.usefixtures("open_policy")
def test_a_cancelled_import_stops_and_leaves_nothing(site, workspace, alice, alice_client, monkeypatch, http):
    monkeypatch.setattr(imports, "_PROGRESS_SECONDS", 0.0)
    begun = imports.begin(workspace=workspace, user=alice, link=site("video/a.mp4"))
    page = alice_client.get(workspace.get_absolute_url()).content.decode()
    assert "every 1s" in page
    note, cancelled = imports._note, []

    def cancel_in_the_middle(row, **values):
        if "received_bytes" in values and not cancelled:
            url = reverse("import-cancel", args=[workspace.slug, begun.pk])
            cancelled.append(alice_client.post(url).status_code)
        note(row, **values)

    monkeypatch.setattr(imports, "_note", cancel_in_the_middle)
    imports.run(begun.pk)
    begun.refresh_from_db()
    assert (begun.status, begun.link, cancelled) == ("cancelled", "", [302])
    assert not objects.exists(begun.storage_key)
    assert not Video.objects.exists()


@pytest.mark.django_db
@pytest.mark.usefixtures("open_policy")
def test_what_may_pass_is_tried_again_three_times(site, workspace, alice):
    begun = imports.begin(workspace=workspace, user=alice, link=site("liar"))
    for number in range(1, 4):
        imports.run(begun.pk)
        begun.refresh_from_db()
        assert (begun.status, begun.num_tries) == ("waiting" if number < 3 else "failed", number)
    assert begun.problem == "broken_off"


@pytest.mark.django_db
@pytest.mark.usefixtures("open_policy")
def test_an_import_whose_worker_was_killed_goes_on_with_another(site, workspace, alice):
    begun = imports.begin(workspace=workspace, user=alice, link=site("video/a.mp4"))
    long_ago = timezone.now() - 2 * imports.LOST
    LinkImport.objects.update(status="fetching", num_tries=1, touched_at=long_ago)
    imports.run(begun.pk)
    assert not Video.objects.exists(), "somebody may be at it"
    repair.repair()
    imports.run(begun.pk)
    assert Video.objects.get().size_bytes == len(VIDEO)


@pytest.mark.django_db
def test_an_import_that_kills_its_workers_is_given_up(workspace):
    long_ago = timezone.now() - 2 * imports.LOST
    begun = LinkImport.objects.create(
        workspace=workspace, link="https://a.example/", host="a.example", storage_key=f"{workspace.pk}/sources/a",
        status="fetching", num_tries=imports.MAX_TRIES, touched_at=long_ago,
    )  # fmt: skip
    repair.repair()
    begun.refresh_from_db()
    assert (begun.status, begun.problem, begun.link) == ("failed", "interrupted", "")


@pytest.mark.django_db
def test_the_form_says_what_is_wrong_and_keeps_what_was_typed(alice_client, workspace):
    answer = alice_client.post(
        reverse("import-create", args=[workspace.slug]),
        {"link": "http://example.com/a.mp4"},
        headers={"HX-Request": "true"},
    )
    page = answer.content.decode()
    assert answer.status_code == 422
    assert str(Problem.NOT_HTTPS.label) in page
    assert "http://example.com/a.mp4" in page
    assert not LinkImport.objects.exists()


@pytest.mark.django_db
def test_a_workspace_imports_a_few_at_a_time(workspace, alice):
    for number in range(imports.MAX_UNDER_WAY):
        imports.begin(workspace=workspace, user=alice, link=f"https://films.example/{number}.mp4")
    with pytest.raises(imports.TooMany):
        imports.begin(workspace=workspace, user=alice, link="https://films.example/more.mp4")


@pytest.mark.django_db
def test_what_became_of_an_import_is_forgotten_in_time(workspace, alice):
    imports.begin(workspace=workspace, user=alice, link="https://films.example/a.mp4")
    LinkImport.objects.update(status="done", touched_at=timezone.now() - 2 * retention.IMPORT_KEPT)
    retention.enforce()
    assert not LinkImport.objects.exists()
