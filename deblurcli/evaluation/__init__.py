"""Measuring how good a method is: the pictures (`cases`, `koehler`), the order (`evaluate`), the
figures (`metrics`), their means (`scores`) and tables (`tables`), and pages to look at: of an
evaluation (`report`), of pictures side by side (`comparison`), built by `html`."""
