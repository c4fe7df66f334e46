// fastnets._C.Plan: kernel calls recorded once and run in one call, without the GIL.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <tuple>

#include "common/arguments.h"
#include "plan/plan.h"

namespace fastnets {
namespace {

namespace py = pybind11;

using Addresses = std::vector<uintptr_t>;

class RecordedPlan {
 public:
  // memory: (address, bytes, external) of each region.
  explicit RecordedPlan(const std::vector<std::tuple<uintptr_t, int64_t, bool>>& memory)
      : plan_(regions(memory)), externals_(0) {
    for (const auto& region : memory) externals_ += std::get<2>(region) ? 1 : 0;
  }

  RecordedPlan& enter() {
    plan_.begin();
    return *this;
  }

  void exit(const py::args&) { plan_.end(); }

  int64_t size() const { return plan_.size(); }

  int64_t scratch(int nthreads) const { return plan_.scratch(nthreads); }

  void run(const Addresses& externals, int nthreads) { launch(externals, nthreads, nullptr); }

  py::array_t<double> profile(const Addresses& externals, int nthreads) {
    py::array_t<double> seconds(plan_.size());
    std::fill_n(seconds.mutable_data(), plan_.size(), 0.0);
    launch(externals, nthreads, seconds.mutable_data());
    return seconds;
  }

 private:
  static std::vector<Region> regions(const std::vector<std::tuple<uintptr_t, int64_t, bool>>& memory) {
    std::vector<Region> made;
    for (const auto& [address, bytes, external] : memory) {
      made.push_back({reinterpret_cast<const char*>(address), bytes, external});
    }
    return made;
  }

  void launch(const Addresses& externals, int nthreads, double* seconds) {
    require(externals.size() == externals_ && nthreads >= 1,
            "plan: run() got " + std::to_string(externals.size()) + " addresses and " +
                std::to_string(nthreads) + " threads: pass " + std::to_string(externals_) +
                " addresses and 1 thread or more");
    std::vector<char*> pointers;
    for (const uintptr_t address : externals) pointers.push_back(reinterpret_cast<char*>(address));
    const py::gil_scoped_release release;
    plan_.run(pointers, nthreads, seconds);
  }

  Plan plan_;
  size_t externals_;
};

}  // namespace

void register_plan(py::module_& m) {
  py::class_<RecordedPlan>(m, "Plan")
      .def(py::init<const std::vector<std::tuple<uintptr_t, int64_t, bool>>&>(), py::arg("memory"))
      .def("__enter__", &RecordedPlan::enter, py::return_value_policy::reference)
      .def("__exit__", &RecordedPlan::exit)
      .def("__len__", &RecordedPlan::size)
      .def("scratch", &RecordedPlan::scratch, py::arg("nthreads"))
      .def("run", &RecordedPlan::run, py::arg("externals"), py::arg("nthreads"))
      .def("profile", &RecordedPlan::profile, py::arg("externals"), py::arg("nthreads"));
  m.def("openmp_is_awake", &openmp_is_awake, py::arg("nthreads"));
}

}  // namespace fastnets
