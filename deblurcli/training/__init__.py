"""Training: the loop (`trainer`), one step of it (`train_step`), when what changes (`schedule`),
what is kept of a run (`checkpoint`), how it is measured (`validation`) and watched (`progress`)."""
