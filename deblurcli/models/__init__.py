"""The networks: `generator` works coarse to fine on the levels that `compact` or `deepdeblur`
describes, after a `config`; `discriminator` judges it in training."""
