"""From a torch module to fused kernels over one arena: trace, lower, fuse, lay out, record, run."""

from fastnets.engine.explain import Explanation
from fastnets.engine.module import Optimized, optimize

__all__ = ["Explanation", "Optimized", "optimize"]
