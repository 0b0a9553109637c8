"""Films: their frames in and out, what holds them together, and how steady they are.

`frames` looks through the frames of a film, `cuts` finds its shots, and `painting` paints each shot from
files to files; `flow` says where pixels come from. `sequences` have known flow, by which `judging` tells how
steady a method is. docs/video.md explains it all.
"""

from __future__ import annotations
