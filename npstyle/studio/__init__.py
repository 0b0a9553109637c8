"""The studio: a page in the browser where one sees a picture being painted (docs/studio.md).

`server` starts it, `guard` decides which requests it answers, and `app` answers them. `orders` says what the
page may ask for, `folder` keeps it on the disk, `queue` has one picture painted at a time, by the process in
`worker`, and `estimates` says beforehand what that takes. The page itself is in `static`.

`watch` serves the same page for one run of the command line, and `report` writes it as a file. What they
share with the studio: `guarded_server` listens, `pages` answers alike, `events` tells those who look, and
`follower` says what of a run.
"""
