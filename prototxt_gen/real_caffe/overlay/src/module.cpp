// The Python module _caffe: Caffe's own binding made anew with pybind11, so that no Boost.Python for just this Python
// is needed. Long calls let go of the GIL; a failed CHECK arrives as caffe.CheckError.

#include "bindings.hpp"

#include "caffe/util/benchmark.hpp"
#include "caffe/util/rng.hpp"
#include "prototxt_gen/check.hpp"

using caffe::Caffe;

static void RefuseGpu(const py::args&) {
  throw prototxt_gen::CheckFailure("this Caffe is built for the CPU only: call caffe.set_mode_cpu()");
}

static std::string RandomState() {
  std::ostringstream text;
  text << *caffe::caffe_rng();
  return text.str();
}

static void SetRandomState(const std::string& text) {
  std::istringstream stream(text + " ");  // the reader wants something after the last number
  caffe::rng_t state;
  if (!(stream >> state)) { throw std::invalid_argument("not a text that random_state() returned"); }
  *caffe::caffe_rng() = state;
}

static void BindLogging(py::module_& module) {
  py::register_exception<prototxt_gen::CheckFailure>(module, "CheckError", PyExc_RuntimeError);
  // Lines always go to stderr; the second argument is accepted because Caffe's own init_log has it.
  module.def("init_log", [](int level, bool) { prototxt_gen::set_minimum_severity(level); },
      py::arg("level") = 0, py::arg("stderr") = true);
  module.def("log", [](const std::string& text) { LOG(INFO) << text; });
}

PYBIND11_MODULE(_caffe, module) {
  module.attr("__version__") = AS_STRING(CAFFE_VERSION);
  BindLogging(module);
  module.def("set_mode_cpu", [] { Caffe::set_mode(Caffe::CPU); });
  module.def("set_mode_gpu", &RefuseGpu);
  module.def("set_device", &RefuseGpu);
  module.def("set_random_seed", &Caffe::set_random_seed);
  module.def("random_state", &RandomState);
  module.def("set_random_state", &SetRandomState);
  module.def("has_nccl", [] { return false; });
  module.def("solver_count", &Caffe::solver_count);
  module.def("layer_type_list", &caffe::LayerRegistry<Real>::LayerTypeList);
  BindBlob(module);
  BindLayer(module);
  BindNet(module);
  BindSolver(module);
  py::class_<caffe::Timer>(module, "Timer")
      .def(py::init<>())
      .def("start", &caffe::Timer::Start)
      .def("stop", &caffe::Timer::Stop)
      .def_property_readonly("ms", &caffe::Timer::MilliSeconds);
}
