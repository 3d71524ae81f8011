"""Measuring how good a method is: the pictures (`cases`, `koehler`), the order (`evaluate`), the
figures (`metrics`), their means (`scores`), tables and pages of them (`report`), pages of pictures
side by side (`comparison`), built by `html`."""
