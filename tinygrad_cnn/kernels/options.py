"""Which algorithms kernels may choose and how many threads they get; `tinygrad_cnn.backends` is the public place to set it."""

conv_algorithm = "auto"  # "auto", "direct" or "winograd"

threads = 0
"""Threads of a kernel; 0: as many as numba has, one for each core."""
