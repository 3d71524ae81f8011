"""A run over many files: which jobs it has (`plan`, `job`), and doing them (`run` on this machine,
`clips` for videos, `ray` on many machines)."""
