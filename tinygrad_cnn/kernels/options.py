"""Which algorithms kernels may choose; `tinygrad_cnn.backends` is the public place to set it."""

conv_algorithm = "auto"  # "auto", "direct" or "winograd"
