"""A corpus of files that nobody should send: damaged, lying, pointing elsewhere. Made anew, the same each time.

`CORPUS` names each file with its recipe and the verdict that it has to get: a value of `Rejection`, or facts that hold
for one that can be restored all the same.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import re
import struct
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import imageio_ffmpeg

from tests import samples

Recipe = Callable[[], bytes]
#: A file that may be readable or not: only a verdict counts.
ANY: Final = "any"


@cache
def sample(name: str) -> bytes:
    """Returns a sample's bytes."""
    return samples.path(name).read_bytes()


@cache
def made(suffix: str, *arguments: str) -> bytes:
    """Returns a file that ffmpeg makes of the sample of two seconds."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, f"made.{suffix}")
        program = imageio_ffmpeg.get_ffmpeg_exe()
        source = str(samples.path("pal_25.mp4"))
        command = [program, "-v", "error", "-nostdin", "-y", "-i", source, *arguments, str(target)]
        subprocess.run(command, check=True, capture_output=True)
        return target.read_bytes()


def part(name: str, share: float) -> Recipe:
    return lambda: sample(name)[: int(len(sample(name)) * share)]


def patched(content: Callable[[], bytes], pattern: bytes, change: Callable[[bytearray, int], None]) -> Recipe:
    """Changes bytes behind each place where a pattern stands."""

    def make() -> bytes:
        changed = bytearray(content())
        places = [match.start() for match in re.finditer(re.escape(pattern), changed)]
        assert places, pattern
        for place in places:
            change(changed, place)
        return bytes(changed)

    return make


def put(offset: int, layout: str, *values: Any) -> Callable[[bytearray, int], None]:
    return lambda content, place: struct.pack_into(layout, content, place + offset, *values)


def mutated(name: str, seed: int, *, num_changes: int = 40, within: float = 1.0) -> Recipe:
    """Flips, overwrites, drops and doubles bytes of a sample."""
    return lambda: mutate(sample(name), random.Random(seed), num_changes=num_changes, within=within)


def mutate(content: bytes, dice: random.Random, *, num_changes: int, within: float = 1.0) -> bytes:
    """Returns content with some changes in its first part, chosen by the dice."""
    changed = bytearray(content)
    for _ in range(num_changes):
        place = dice.randrange(max(1, int(len(changed) * within)))
        match dice.randrange(5):
            case 0:
                changed[place] ^= 1 << dice.randrange(8)
            case 1:
                changed[place : place + 4] = dice.choice(
                    [b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", b"\x80\0\0\0", dice.randbytes(4)]
                )
            case 2:
                del changed[place : place + dice.randrange(1, 64)]
            case 3:
                changed[place:place] = dice.randbytes(dice.randrange(1, 64))
            case _:
                changed[place:place] = changed[place : place + dice.randrange(1, 512)]
    return bytes(changed)


def box(name: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content


def png(width: int, height: int, *, rows: int = 1) -> bytes:
    """Returns a gray PNG that promises a size and brings some rows."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1 + width) * rows, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def zipped(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("video.mp4", content)
    return packed.getvalue()


def tarred(content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("video.mp4")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def nested_boxes(depth: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = box(b"moov", content)
    return box(b"ftyp", b"isom\0\0\2\0isom") + content


_MP4: Final[Recipe] = partial(sample, "pal_25.mp4")
_AVI: Final[Recipe] = partial(sample, "old_camera.avi")
_HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
_STREAM_COPY = ("-c", "copy")
_TINY = ("-frames:v", "1", "-an")

CORPUS: Final[dict[str, tuple[Recipe, Any]]] = {
    # --- Nothing, or something else ---
    "nothing": (lambda: b"", "empty"),
    "one_byte": (lambda: b"\0", "unreadable"),
    "zeros": (lambda: bytes(2**20), "unreadable"),
    "ones": (lambda: b"\xff" * 2**18, "unreadable"),
    "noise": (lambda: random.Random(1).randbytes(2**18), "unreadable"),
    "letter": (lambda: b"Dear Sir or Madam,\n" * 500, "unreadable"),
    "page": (lambda: b"<!DOCTYPE html><html><body>Sign in</body></html>", "unreadable"),
    "xml": (lambda: b'<?xml version="1.0"?><a/>', "unreadable"),
    "json": (lambda: b'{"video": "a.mp4"}' * 50, "unreadable"),
    "pdf": (lambda: b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n" * 50, "unreadable"),
    "program": (lambda: b"\x7fELF\x02\x01\x01" + random.Random(2).randbytes(5000), "unreadable"),
    "windows_program": (lambda: b"MZ\x90\0" + random.Random(3).randbytes(5000), "unreadable"),
    "svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "unreadable"),
    # --- Cut off ---
    "mp4_first_bytes": (part("pal_25.mp4", 0.01), "unreadable"),
    "mp4_half": (part("pal_25.mp4", 0.5), "unreadable"),
    "mp4_without_its_end": (part("pal_25.mp4", 0.98), "unreadable"),
    "mp4_index_first_half": (
        lambda: made("mp4", *_STREAM_COPY, "-movflags", "+faststart")[: len(_MP4()) // 2],
        {"is_image": False},
    ),
    "mkv_half": (part("vfr.mkv", 0.5), {"is_image": False}),
    "webm_half": (part("vp9_vorbis.webm", 0.5), {"codec": "vp9"}),
    "ts_half": (part("late_start.ts", 0.5), {"codec": "h264"}),
    "avi_half": (part("old_camera.avi", 0.5), {"codec": "mpeg4"}),
    "mpg_half": (part("mpeg2.mpg", 0.5), {"codec": "mpeg2video"}),
    "ogv_half": (part("grand_prix_1906.ogv", 0.5), {"codec": "theora"}),
    "webm_header": (lambda: sample("vp9_vorbis.webm")[:200], "unreadable"),
    "flv_header": (lambda: b"FLV\x01\x05\0\0\0\x09\0\0\0\0", "unreadable"),
    "asf_header": (lambda: bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes(100), "unreadable"),
    "mxf_header": (lambda: bytes.fromhex("060e2b34020501010d01020101020400") + bytes(500), "unreadable"),
    "ts_of_null_packets": (lambda: (b"\x47\x1f\xff\x10" + b"\xff" * 184) * 2000, "unreadable"),
    # --- Broken MP4 ---
    "mp4_index_only": (lambda: box(b"ftyp", b"isom\0\0\2\0isom") + box(b"moov"), "unreadable"),
    "mp4_type_only": (lambda: box(b"ftyp", b"isom\0\0\2\0isom"), "unreadable"),
    "mp4_frames_only": (lambda: box(b"ftyp", b"isom\0\0\2\0isom") + box(b"mdat", bytes(9999)), "unreadable"),
    "mp4_boxes_in_boxes": (lambda: nested_boxes(5000), "unreadable"),
    "mp4_endless_box": (
        lambda: box(b"ftyp", b"isom\0\0\2\0isom") + b"\xff\xff\xff\xffmoov" + bytes(99), "unreadable",
    ),
    "mp4_box_of_size_one": (lambda: box(b"ftyp") + b"\0\0\0\1moov" + b"\xff" * 8, "unreadable"),
    "mp4_million_frames": (patched(_MP4, b"stsz", put(8, ">II", 1000, 1_000_000)), "unreadable"),
    "mp4_billion_frames": (patched(_MP4, b"stsz", put(8, ">II", 1, 2**30)), "unreadable"),
    "mp4_no_frames": (patched(_MP4, b"stsz", put(12, ">I", 0)), "unreadable"),
    "mp4_frames_of_no_bytes": (patched(_MP4, b"stsz", put(8, ">I", 0)), ANY),
    "mp4_years_long": (patched(_MP4, b"stts", put(16, ">I", 0xFFFFFFF)), "too_long"),
    "mp4_no_time": (patched(_MP4, b"stts", put(16, ">I", 0)), ANY),
    "mp4_time_scale_zero": (patched(_MP4, b"mdhd", put(16, ">I", 0)), ANY),
    "mp4_elsewhere_in_the_file": (patched(_MP4, b"stco", put(12, ">I", 0xFFFFFFF0)), "unreadable"),
    "mp4_in_fragments": (
        lambda: made("mp4", *_STREAM_COPY, "-movflags", "frag_keyframe+empty_moov"), {"num_frames": 50},
    ),
    # --- Copy-protected ---
    "encrypted": (
        lambda: made(
            "mp4", *_STREAM_COPY, "-encryption_scheme", "cenc-aes-ctr", "-encryption_key", "00" * 16,
            "-encryption_kid", "11" * 16,
        ),
        "encrypted",
    ),
    "encrypted_old": (patched(_MP4, b"avc1\0\0\0\0", put(0, "4s", b"drmi")), "encrypted"),
    # --- Sound only ---
    "sound_m4a": (lambda: sample("sound_only.m4a"), "no_picture"),
    "sound_mp3": (lambda: made("mp3", "-vn"), "no_picture"),
    "sound_wav": (lambda: made("wav", "-vn"), "no_picture"),
    "sound_ogg": (lambda: made("ogg", "-vn", "-c:a", "libvorbis"), "no_picture"),
    "sound_mka": (lambda: made("mka", "-vn", "-c:a", "copy"), "no_picture"),
    "sound_with_cover": (
        lambda: made(
            "m4a", "-map", "0:a", "-map", "0:v", "-c:a", "copy", "-c:v", "mjpeg", "-frames:v", "1",
            "-disposition:v", "attached_pic",
        ),
        "no_picture",
    ),
    # --- Pictures posing as videos ---
    "png": (lambda: sample("picture.png"), {"is_image": True, "num_frames": 1}),
    "jpeg": (lambda: made("jpg", *_TINY), {"is_image": True, "num_frames": 1}),
    "bmp": (lambda: made("bmp", *_TINY), {"is_image": True, "num_frames": 1}),
    "tiff": (lambda: made("tiff", *_TINY), {"is_image": True, "num_frames": 1}),
    "moving_gif": (lambda: made("gif", "-t", "0.4", "-an"), {"is_image": False}),
    "png_without_pixels": (lambda: sample("picture.png")[:60], "unreadable"),
    # --- Sizes ---
    "wide_as_a_street": (lambda: png(100_000, 1), "too_large"),
    "high_as_a_tower": (lambda: png(1, 100_000), "too_large"),
    "picture_bomb": (lambda: png(60_000, 60_000), "too_large"),
    "picture_bomb_that_fits": (lambda: png(8192, 8192, rows=8192), {"is_image": True}),
    "one_pixel": (lambda: png(1, 1), "too_small"),
    "y4m_street": (lambda: b"YUV4MPEG2 W100000 H1 F25:1 C420\nFRAME\n" + bytes(150_000), "too_large"),
    "y4m_nothing": (lambda: b"YUV4MPEG2 W0 H0 F25:1 C420\nFRAME\n", "unreadable"),
    "avi_street": (patched(_AVI, b"strf\x28\0\0\0", put(12, "<II", 100_000, 1)), {"coded_width": 320}),
    "video_9000": (
        lambda: made("mkv", "-vf", "scale=9000:16", "-frames:v", "2", "-c:v", "ffv1", "-an"), "too_large",
    ),
    "video_8": (
        lambda: made("mkv", "-vf", "scale=8:8", "-frames:v", "2", "-c:v", "ffv1", "-an"), "too_small",
    ),
    # --- Times ---
    "a_frame_an_hour": (
        lambda: made("mkv", *_STREAM_COPY, "-an", "-bsf:v", "setts=ts=N*3600/TB"), "too_long",
    ),
    "a_million_frames_a_second": (
        lambda: made("mkv", "-an", "-c:v", "ffv1", "-bsf:v", "setts=ts=N"), {"is_image": False},
    ),
    # --- Pointing elsewhere ---
    "hls_web": (lambda: _HLS.format("http://127.0.0.1:9/x.ts").encode(), "playlist"),
    "hls_file": (lambda: _HLS.format("file:///etc/hostname").encode(), "playlist"),
    "hls_relative": (lambda: _HLS.format("../../../etc/hostname").encode(), "playlist"),
    "hls_after_a_mark": (lambda: b"\xef\xbb\xbf\r\n" + _HLS.format("a.ts").encode(), "playlist"),
    "hls_key": (
        lambda: b'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="http://169.254.169.254/"\n#EXTINF:9,\na.ts\n',
        "playlist",
    ),
    "concat": (lambda: b"ffconcat version 1.0\nfile /etc/hostname\n", "playlist"),
    "concat_without_header": (lambda: b"file '/etc/hostname'\n", "unreadable"),
    "dash": (
        lambda: b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>', "playlist",
    ),
    "sdp": (lambda: b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nm=video 9 RTP/AVP 96\r\n", "playlist"),
    "pls": (lambda: b"[playlist]\nFile1=http://127.0.0.1:9/a.mp4\n", "playlist"),
    "asx": (lambda: b'<asx version="3.0"><entry><ref href="http://127.0.0.1:9/"/></entry></asx>', "playlist"),
    "reference": (lambda: b"[Reference]\r\nRef1=http://127.0.0.1:9/a.asf\r\n", "playlist"),
    "address": (lambda: b"http://169.254.169.254/latest/meta-data/\n", "unreadable"),
    # --- Archives ---
    "zip": (lambda: zipped(_MP4()), "archive"),
    "zip_bomb": (lambda: zipped(bytes(2**24)), "archive"),
    "tar": (lambda: tarred(_MP4()), "archive"),
    "gzip": (lambda: gzip.compress(_MP4()), "archive"),
    "bzip2": (lambda: bz2.compress(_MP4()), "archive"),
    "xz": (lambda: lzma.compress(_MP4()), "archive"),
    "7z": (lambda: b"7z\xbc\xaf\x27\x1c\0\4" + random.Random(4).randbytes(999), "archive"),
    "rar": (lambda: b"Rar!\x1a\x07\x01\0" + random.Random(5).randbytes(999), "archive"),
    # --- Two things at once ---
    "video_then_zip": (lambda: _MP4() + zipped(b"hello"), {"num_frames": 50}),
    "zip_then_video": (lambda: zipped(b"hello") + _MP4(), "archive"),
    "page_then_video": (lambda: b"<html><script>alert(1)</script></html>" + _MP4(), "unreadable"),
    "picture_then_video": (lambda: sample("picture.png") + _MP4(), {"is_image": True}),
    "gif_and_script": (lambda: b"GIF89a=1;alert(1)//" + bytes(500), ANY),
    "playlist_in_a_box": (
        lambda: box(b"ftyp", b"isom\0\0\2\0isom") + box(b"free", _HLS.format("/etc/hostname").encode()),
        "unreadable",
    ),
    # --- Right content under a wrong name: the content counts ---
    "matroska_called_mp4": (lambda: sample("ntsc_2997.mkv"), {"container": "Matroska / WebM"}),
    "elementary_stream": (
        lambda: made("h264", *_STREAM_COPY, "-an", "-bsf:v", "h264_mp4toannexb"), {"codec": "h264"},
    ),
    # --- Mutations ---
    **{
        f"mutated_{name.partition('.')[2]}_{seed}": (mutated(name, seed), ANY)
        for name in ("pal_25.mp4", "vfr.mkv", "late_start.ts", "old_camera.avi", "grand_prix_1906.ogv")
        for seed in (1, 2)
    },
    **{
        f"mutated_head_{seed}": (mutated("tagged_bt709.mp4", seed, num_changes=8, within=0.05), ANY)
        for seed in range(3)
    },
}  # fmt: skip
