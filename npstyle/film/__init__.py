"""Films: their frames in and out, what holds them together, and how steady they are.

`codecs`, `ffmpeg` and `pyav` read and write films, `frames` looks through their frames, `cuts` finds the cuts
between `shots`, and `painting` paints each shot from files to files; `flow` says where pixels come from.
`sequences` have known flow, by which `judging` tells how steady a method is. docs/video.md explains it all.
"""

from __future__ import annotations
