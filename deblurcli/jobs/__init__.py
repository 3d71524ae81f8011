"""A run over many files: which jobs it has (`planning`, `job`), and doing them (`pipeline` on
this machine, `clip_jobs` for videos, `cluster` on many machines)."""
