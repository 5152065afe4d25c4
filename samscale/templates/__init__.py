"""Files that ``samscale new`` copies: they run as they are, and are meant to be edited."""
