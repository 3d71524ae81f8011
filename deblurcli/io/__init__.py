"""Reading and writing: what a path is (`media`), writing that leaves nothing half done (`files`),
`photos` and `videos`."""
