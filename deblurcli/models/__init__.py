"""The networks: `generator` works coarse to fine on the levels that `compact` or `deepdeblur`
describes, built of `layers` after a `config`; `discriminator` judges it in training."""
