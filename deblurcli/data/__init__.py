"""Blurred and sharp pairs: data sets as they lie on disk (`layouts`), drawing training batches
(`sampling`, `feed`), simulated blur (`synthesis`, `degradations`), making sets (`make_pairs`)."""
