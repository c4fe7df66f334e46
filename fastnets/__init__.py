"""The classic image-analysis networks, run exactly and fast over whole slides and volumes."""

import torch  # noqa: F401  before _C, so that the process holds one libgomp: torch's
