"""Small files for the media tests: name and the arguments of the ffmpeg program that makes each.

A `{name}` among the arguments stands for that sample's path.
"""

from __future__ import annotations

from typing import Final

_BIKES: Final = ("-i", "{bikes.mp4}")
_MPEG2: Final = ("-c:v", "mpeg2video", "-q:v", "3", "-an")
_FFV1: Final = ("-c:v", "ffv1", "-an")

RECIPES: Final[dict[str, tuple[str, ...]]] = {
    # Fields. A second of film in twice its speed moves enough.
    "film.mkv": (*_BIKES, "-t", "2", "-vf", "fps=24000/1001,scale=160:96", *_FFV1),
    "telecined.mkv": ("-i", "{film.mkv}", "-vf", "telecine=pattern=23", *_FFV1),
    "telecined.mpg": ("-i", "{film.mkv}", "-vf", "telecine=pattern=23:first_field=b,setfield=bff", *_MPEG2),
    "telecined_10bit.mkv": (*("-i", "{film.mkv}", "-vf", "telecine=pattern=32,format=yuv422p10le", *_FFV1),),
    "interlaced_bottom.mpg": (
        *_BIKES,
        *("-t", "2", "-vf", "setpts=PTS/2,fps=50,scale=160:96,tinterlace=interleave_bottom,setfield=bff"),
        *_MPEG2,
    ),
    # Interlaced, and the file does not say so.
    "interlaced_untold.mkv": (
        *_BIKES,
        *("-t", "2", "-vf", "setpts=PTS/2,fps=50,scale=160:96,tinterlace=interleave_top,setfield=prog"),
        *_FFV1,
    ),
    # Coded as interlaced, and the picture is not.
    "film_on_tape.mpg": (
        *_BIKES,
        *("-t", "2", "-vf", "scale=160:96,setfield=tff", "-flags", "+ilme+ildct"),
        *_MPEG2,
    ),
    "grain.mkv": (
        *_BIKES,
        *("-frames:v", "40", "-vf", "select=eq(n\\,9),loop=40:1,scale=160:96,noise=alls=12:allf=t", *_FFV1),
    ),
}
