"""From a torch module to fused kernels over one arena: trace, lower, fuse, lay out, record, run."""
