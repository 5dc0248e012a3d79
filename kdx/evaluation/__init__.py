"""Finished networks measured again: on any data set, at other resolutions, under shifts of the images."""
