"""Self-contained web pages to look at: what they say (`reports`) and how they are built
(`page`, with its styles and script in ``page_parts``)."""
