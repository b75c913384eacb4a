"""Small files for the media tests: name and the arguments of the ffmpeg program that makes each.

A `{name}` among the arguments stands for that sample's path.
"""

from __future__ import annotations

from typing import Final

_BIKES: Final = ("-i", "{bikes.mp4}")
_MPEG2: Final = ("-c:v", "mpeg2video", "-q:v", "3", "-an")
_FFV1: Final = ("-c:v", "ffv1", "-an")

_MOVING: Final = ("-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25:duration=1")
_STEREO: Final = (
    *("-f", "lavfi", "-i"),
    "aevalsrc=0.4*sin(2*PI*440*t)|0.3*sin(2*PI*553*t):s=48000:d=1",
)
_X264: Final = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")


def _sound(*codec: str) -> tuple[str, ...]:
    return (*_MOVING, *_STEREO, *_X264, "-c:a", *codec, "-shortest")


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
    # Sound: what MP4 and MOV copy, and what becomes FLAC, PCM or AAC there.
    "sound_ac3.mkv": _sound("ac3"),
    "sound_eac3.mkv": _sound("eac3"),
    "sound_dts.mkv": _sound("dca", "-strict", "-2"),
    "sound_alac.mov": _sound("alac"),
    "sound_flac.mkv": _sound("flac"),
    "sound_mp3.mkv": _sound("libmp3lame"),
    "sound_opus.webm": (*_MOVING, *_STEREO, "-c:v", "libvpx", "-c:a", "libopus"),
    "sound_pcm24.mov": _sound("pcm_s24le"),
    "sound_pcm16.avi": _sound("pcm_s16le"),
    "sound_float.mkv": _sound("pcm_f32le"),
    "sound_wma.wmv": (*_MOVING, *_STEREO, "-c:v", "wmv2", "-c:a", "wmav2"),
    "sound_mp2.ts": _sound("mp2"),
    "surround.mkv": (
        *(*_MOVING, *_STEREO, *_X264),
        *("-af", "pan=5.1|FL=c0|FR=c1|FC=c0|LFE=c1|BL=c0|BR=c1", "-c:a", "pcm_s24le"),
    ),
    # The sound ends before the picture.
    "short_sound.mkv": (*_MOVING, *_STEREO, "-af", "atrim=end=0.4", *_X264, "-c:a", "aac"),
    # The picture begins after the sound.
    "late_picture.mkv": (*("-itsoffset", "0.4", *_MOVING, *_STEREO, *_X264, "-c:a", "aac"),),
    # Time, geometry and containers.
    "pal_50.mkv": (*_MOVING, "-vf", "fps=50", *_X264),
    "ntsc.avi": (*_MOVING, "-vf", "fps=30000/1001", "-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj420p"),
    "flash.flv": (*_MOVING, "-c:v", "flv", "-q:v", "2"),
    "windows.wmv": (*_MOVING, "-c:v", "wmv2", "-q:v", "2"),
    "moving.gif": (*_MOVING, "-vf", "fps=10", "-loop", "0"),
    # The last frame stands for three seconds, the one before it for as long as all others.
    "end_card.gif": (*_MOVING, "-vf", "fps=10", "-final_delay", "300"),
    # Three frames, at 0, 1 and 10 seconds; the last one is shown for a second.
    "slides.mkv": (
        *(
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=96x64:rate=1:duration=3",
            "-vf",
            "setpts=if(eq(N\\,2)\\,10\\,N)/TB",
        ),
        *(*_X264, "-fps_mode", "vfr"),
    ),
    "pngs.mov": (*_MOVING, "-c:v", "png"),
    "vp8.webm": (*_MOVING, "-c:v", "libvpx", "-crf", "4", "-b:v", "2M"),
    "dv.dv": (*("-f", "lavfi", "-i", "testsrc2=size=720x576:rate=25:duration=0.2", "-pix_fmt", "yuv420p"),),
    "mirrored.mp4": ("-display_hflip", "-i", "{moving.mp4}", "-c", "copy"),
    "upside_down.mp4": ("-display_vflip", "-i", "{moving.mp4}", "-c", "copy"),
    "turned_and_mirrored.mp4": (
        *("-display_rotation", "90", "-display_hflip", "-i", "{moving.mp4}", "-c", "copy"),
    ),
    "moving.mp4": (*_MOVING, *_X264),
    "odd_both.mkv": (*_MOVING, "-vf", "scale=85:47", *_FFV1),
    "beside_sixteen.mkv": (*_MOVING, "-vf", "scale=97:63", *_FFV1),
    "wide_pixels.mpg": (*_MOVING, "-vf", "setsar=16/11", *_MPEG2),
    "tall_pixels.mov": (*_MOVING, "-vf", "setsar=1/2", *_X264),
    # Depth and color.
    "hlg.mp4": (
        *_MOVING,
        *(
            "-vf",
            (
                "format=yuv420p10le,setparams=color_primaries=bt2020:color_trc=arib-std-b67:"
                "colorspace=bt2020nc:range=tv"
            ),
        ),
        *("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none", "-an"),
    ),
    "hdr10.mp4": (
        *_MOVING,
        *(
            "-vf",
            (
                "format=yuv420p10le,setparams=color_primaries=bt2020:color_trc=smpte2084:"
                "colorspace=bt2020nc:range=tv"
            ),
        ),
        *("-c:v", "libx265", "-preset", "ultrafast", "-an", "-x265-params"),
        (
            "log-level=none:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)"
            "L(10000000,50):max-cll=1000,400"
        ),
    ),
    "wide_gamut.mkv": (
        *_MOVING,
        *(
            "-vf",
            (
                "format=yuv444p12le,setparams=color_primaries=bt2020:color_trc=bt2020-12:"
                "colorspace=bt2020nc:range=tv"
            ),
            *_FFV1,
        ),
    ),
    "full_range_10bit.mkv": (
        *(*_BIKES, "-t", "1", "-vf", "scale=160:96:out_range=full:out_color_matrix=bt709,format=yuv420p10le"),
        *("-color_range", "pc", "-colorspace", "bt709", *_FFV1),
    ),
    "prores_alpha.mov": (
        *_MOVING,
        *("-vf", "format=yuva444p10le,geq=lum='lum(X,Y)':cb='cb(X,Y)':cr='cr(X,Y)':a='X*10'"),
        *("-c:v", "prores_ks", "-profile:v", "4444", "-alpha_bits", "16"),
    ),
    "still.jpg": (*_MOVING, "-frames:v", "1", "-q:v", "2"),
    "still.webp": (*_MOVING, "-frames:v", "1"),
    "still.tiff": (*_MOVING, "-frames:v", "1", "-pix_fmt", "rgb48le"),
    "still.bmp": (*_MOVING, "-frames:v", "1"),
}
