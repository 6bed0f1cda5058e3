// caffe.Solver and the six of it: SGD, Nesterov, AdaGrad, RMSProp, AdaDelta, Adam.

#include "bindings.hpp"

#include <filesystem>
#include <optional>

#include "caffe/solver_factory.hpp"
#include "caffe/util/upgrade_proto.hpp"

using caffe::SGDSolver;
using caffe::Solver;
using caffe::SolverParameter;
using std::filesystem::path;

typedef py::call_guard<py::gil_scoped_release> WithoutGil;

class PythonCallback : public Solver<Real>::Callback {
 public:
  PythonCallback(py::function on_start, py::function on_gradients_ready)
      : on_start_(on_start), on_gradients_ready_(on_gradients_ready) {}

 protected:
  void on_start() override {
    py::gil_scoped_acquire gil;
    on_start_();
  }
  void on_gradients_ready() override {
    py::gil_scoped_acquire gil;
    on_gradients_ready_();
  }

 private:
  py::function on_start_, on_gradients_ready_;
};

// Names members that the solvers keep protected.
struct Opened : SGDSolver<Real> {
  using SGDSolver<Real>::GetLearningRate;
  using SGDSolver<Real>::ApplyUpdate;
};

static boost::shared_ptr<Solver<Real> > FromFile(const path& file) {
  SolverParameter param;
  caffe::ReadSolverParamsFromTextFileOrDie(file.string(), &param);
  return boost::shared_ptr<Solver<Real> >(caffe::SolverRegistry<Real>::CreateSolver(param));
}

static void Solve(Solver<Real>& solver, const std::optional<path>& resume_file) {
  solver.Solve(resume_file ? resume_file->c_str() : nullptr);
}

template <typename Class>
boost::shared_ptr<Class> Construct(const path& file) {
  py::gil_scoped_release without_gil;
  return boost::shared_ptr<Class>(new Class(file.string()));
}

template <typename Class, typename Base>
py::class_<Class, Base, boost::shared_ptr<Class> > BindOne(py::module_& module, const char* name) {
  return py::class_<Class, Base, boost::shared_ptr<Class> >(module, name).def(py::init(&Construct<Class>));
}

void BindSolver(py::module_& module) {
  py::class_<SolverParameter>(module, "SolverParameter")
      .def_property_readonly("max_iter", [](const SolverParameter& param) { return param.max_iter(); })
      .def_property_readonly("display", [](const SolverParameter& param) { return param.display(); })
      .def_property("base_lr", [](const SolverParameter& param) { return param.base_lr(); },
          [](SolverParameter& param, float rate) { param.set_base_lr(rate); });
  py::class_<Solver<Real>, boost::shared_ptr<Solver<Real> > >(module, "Solver")
      .def_property_readonly("net", [](Solver<Real>& solver) { return solver.net(); })
      .def_property_readonly("test_nets", [](Solver<Real>& solver) { return solver.test_nets(); })
      .def_property_readonly("iter", [](Solver<Real>& solver) { return solver.iter(); })
      .def_property_readonly("type", [](const Solver<Real>& solver) { return std::string(solver.type()); })
      .def_property_readonly("param", [](Solver<Real>& solver) -> const SolverParameter& { return solver.param(); },
          py::return_value_policy::reference_internal)
      .def("add_callback", [](Solver<Real>& solver, py::function on_start, py::function on_gradients_ready) {
             solver.add_callback(new PythonCallback(on_start, on_gradients_ready));
           })
      .def("solve", &Solve, py::arg("resume_file") = py::none(), WithoutGil())
      .def("step", &Solver<Real>::Step, WithoutGil())
      .def("restore", [](Solver<Real>& solver, const path& file) { solver.Restore(file.c_str()); }, WithoutGil())
      .def("snapshot", &Solver<Real>::Snapshot, WithoutGil());
  BindOne<SGDSolver<Real>, Solver<Real> >(module, "SGDSolver")
      .def_property_readonly("lr", [](SGDSolver<Real>& solver) { return (solver.*(&Opened::GetLearningRate))(); })
      .def_property_readonly("history", [](SGDSolver<Real>& solver) { return solver.history(); })
      .def("apply_update", [](SGDSolver<Real>& solver) { (solver.*(&Opened::ApplyUpdate))(); }, WithoutGil());
  BindOne<caffe::NesterovSolver<Real>, SGDSolver<Real> >(module, "NesterovSolver");
  BindOne<caffe::AdaGradSolver<Real>, SGDSolver<Real> >(module, "AdaGradSolver");
  BindOne<caffe::RMSPropSolver<Real>, SGDSolver<Real> >(module, "RMSPropSolver");
  BindOne<caffe::AdaDeltaSolver<Real>, SGDSolver<Real> >(module, "AdaDeltaSolver");
  BindOne<caffe::AdamSolver<Real>, SGDSolver<Real> >(module, "AdamSolver");
  module.def("get_solver", &FromFile, WithoutGil());
}
