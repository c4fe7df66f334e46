// What every kernel does to its results before it stores them.
#pragma once

#include <cstdint>

namespace fastnets {

// The order is part of the interface: fastnets/ops/epilogue.py lists the names in the same order.
enum class Activation : int32_t {
  none,
  relu,
  relu6,
  clamp,        // to [alpha, beta]
  leaky,        // v < 0: alpha * v
  elu,          // v < 0: alpha * (exp(v) - 1)
  silu,         // v * sigmoid(v)
  hardswish,    // v * clamp(v + 3, 0, 6) / 6
  hardsigmoid,  // clamp(v + 3, 0, 6) / 6
  sigmoid,
  tanh,
  gelu,       // v * Phi(v), with erf
  gelu_tanh,  // its approximation by tanh
};

// y = activation(value * scale + shift + residual), per channel; null pointers stand for 1, 0 and 0.
//
// The output may be a channel slice of a wider buffer: kernels take a pointer to its first channel and the
// strides of its pixels. The residual has the shape of the output and strides of its own.
struct Epilogue {
  const float* scale = nullptr;               // [channels]
  const float* shift = nullptr;               // [channels]: the bias
  const void* residual = nullptr;             // of the output's elements
  int64_t residual_stride[4] = {0, 0, 0, 0};  // in elements: image, z, y, x
  Activation activation = Activation::none;
  float alpha = 0.0F, beta = 0.0F;
  double* moments = nullptr;  // [batch][channels][2]: mean and variance of the results go here; by Winograd
};

}  // namespace fastnets
