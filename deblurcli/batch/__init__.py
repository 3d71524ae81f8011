"""A run over many files: which jobs it has (`plan`), and doing them, on this machine (`run`) or on
many (`ray`); a folder and a page that jobs come from (`watch`, `serve`)."""
