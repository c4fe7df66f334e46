// The Python module fastnets._C: one register_<op>(m) line per op, nothing else.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "common/cpu_features.h"

namespace fastnets {
void register_attention(pybind11::module_& m);
void register_channel_norm(pybind11::module_& m);
void register_combine(pybind11::module_& m);
void register_conv(pybind11::module_& m);
void register_conv_transpose(pybind11::module_& m);
void register_conv_transpose_winograd(pybind11::module_& m);
void register_grid_sample(pybind11::module_& m);
void register_inverted_bottleneck(pybind11::module_& m);
void register_matmul(pybind11::module_& m);
void register_nms(pybind11::module_& m);
void register_norm(pybind11::module_& m);
void register_peak(pybind11::module_& m);
void register_plan(pybind11::module_& m);
void register_pointwise(pybind11::module_& m);
void register_pool(pybind11::module_& m);
void register_relayout(pybind11::module_& m);
void register_resize(pybind11::module_& m);
void register_roi_align(pybind11::module_& m);
void register_round_trip(pybind11::module_& m);
void register_separable(pybind11::module_& m);
void register_upfirdn2d(pybind11::module_& m);
void register_window_accumulate(pybind11::module_& m);
void register_window_gather(pybind11::module_& m);
}  // namespace fastnets

PYBIND11_MODULE(_C, m) {
  using fastnets::Isa;
  m.def("active_isa", [] { return std::string(fastnets::isa_name(fastnets::active_isa())); });
  m.def("is_intel", &fastnets::is_intel);
  m.def("assume_intel", &fastnets::assume_intel);
  m.def("available_isas", [] {
    std::vector<std::string> names;
    for (Isa isa : fastnets::available_isas()) names.emplace_back(fastnets::isa_name(isa));
    return names;
  });
  fastnets::register_attention(m);
  fastnets::register_channel_norm(m);
  fastnets::register_combine(m);
  fastnets::register_conv(m);
  fastnets::register_conv_transpose(m);
  fastnets::register_conv_transpose_winograd(m);
  fastnets::register_grid_sample(m);
  fastnets::register_inverted_bottleneck(m);
  fastnets::register_matmul(m);
  fastnets::register_nms(m);
  fastnets::register_norm(m);
  fastnets::register_peak(m);
  fastnets::register_plan(m);
  fastnets::register_pointwise(m);
  fastnets::register_pool(m);
  fastnets::register_relayout(m);
  fastnets::register_resize(m);
  fastnets::register_roi_align(m);
  fastnets::register_round_trip(m);
  fastnets::register_separable(m);
  fastnets::register_upfirdn2d(m);
  fastnets::register_window_accumulate(m);
  fastnets::register_window_gather(m);
}
