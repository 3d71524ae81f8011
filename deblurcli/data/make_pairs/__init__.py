"""Making data sets of blurred and sharp pairs: from video of a high frame rate (`clips`,
`frame_averaging`), from sharp photos (`photo_blurring`), written by `pair_folder`."""
