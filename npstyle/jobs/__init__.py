"""Many pictures: jobs, who does them, and what a batch of them leaves in its folder.

`picture` is one picture as a job, `workers` and `cluster` do jobs, here or on Dask, `plan` says what a batch
paints, and `manifest` what it has painted.
"""
