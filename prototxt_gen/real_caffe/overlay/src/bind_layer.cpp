// caffe.Layer, and the layer type Python: a class of the user's with setup, reshape, forward and backward.

#include "bindings.hpp"

#include "caffe/layer_factory.hpp"

using caffe::Blob;
using caffe::Layer;
using caffe::LayerParameter;

typedef std::vector<Blob<Real>*> Blobs;

static py::list BlobList(const Blobs& blobs) {
  py::list list;
  for (Blob<Real>* blob : blobs) { list.append(py::cast(blob, py::return_value_policy::reference)); }
  return list;
}

// The C++ side of every Python subclass of caffe.Layer.
class PythonLayer : public Layer<Real> {
 public:
  explicit PythonLayer(const LayerParameter& param) : Layer<Real>(param) {}
  inline const char* type() const override { return "Python"; }

  void LayerSetUp(const Blobs& bottom, const Blobs& top) override {
    py::gil_scoped_acquire gil;
    py::object self = py::cast(this, py::return_value_policy::reference);
    self.attr("param_str") = this->layer_param_.python_param().param_str();
    self.attr("phase") = static_cast<int>(this->phase_);
    Method("setup")(BlobList(bottom), BlobList(top));
  }
  void Reshape(const Blobs& bottom, const Blobs& top) override {
    py::gil_scoped_acquire gil;
    Method("reshape")(BlobList(bottom), BlobList(top));
  }

 protected:
  void Forward_cpu(const Blobs& bottom, const Blobs& top) override {
    py::gil_scoped_acquire gil;
    Method("forward")(BlobList(bottom), BlobList(top));
  }
  void Backward_cpu(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    py::gil_scoped_acquire gil;
    Method("backward")(BlobList(top), propagate_down, BlobList(bottom));
  }

 private:
  py::function Method(const char* name) {
    py::function method = py::get_override(static_cast<Layer<Real>*>(this), name);
    if (!method) {
      LOG(FATAL) << "its class " << this->layer_param_.python_param().layer() << " has no method " << name;
    }
    return method;
  }
};

// Keeps the Python object, and with it the C++ layer that it owns, alive for as long as a net uses the layer.
class PythonOwner {
 public:
  explicit PythonOwner(py::object object) : object_(object.release().ptr()) {}
  void operator()(Layer<Real>*) const {
    py::gil_scoped_acquire gil;
    Py_DECREF(object_);
  }

 private:
  PyObject* object_;
};

namespace caffe {

template <typename Dtype>
shared_ptr<Layer<Dtype> > CreatePythonLayer(const LayerParameter& param);

template <>
shared_ptr<Layer<float> > CreatePythonLayer<float>(const LayerParameter& param) {
  py::gil_scoped_acquire gil;
  py::object type = py::module_::import(param.python_param().module().c_str())
      .attr(param.python_param().layer().c_str());
  py::object object = type(py::cast(&param, py::return_value_policy::reference));
  Layer<float>* layer = object.cast<Layer<float>*>();
  return shared_ptr<Layer<float> >(layer, PythonOwner(object));
}

template <>
shared_ptr<Layer<double> > CreatePythonLayer<double>(const LayerParameter& param) {
  LOG(FATAL) << "Python layers exist for float only";
  return shared_ptr<Layer<double> >();
}

REGISTER_LAYER_CREATOR(Python, CreatePythonLayer);

}  // namespace caffe

void BindLayer(py::module_& module) {
  py::class_<LayerParameter>(module, "LayerParameter");  // opaque: what a Python layer's constructor is given
  py::class_<Layer<Real>, PythonLayer, boost::shared_ptr<Layer<Real> > >(module, "Layer")
      .def(py::init<const LayerParameter&>())
      .def_property_readonly("blobs", [](Layer<Real>& layer) -> BlobVec& { return layer.blobs(); },
          py::return_value_policy::reference_internal)
      .def_property_readonly("type", [](const Layer<Real>& layer) { return std::string(layer.type()); })
      .def("setup", [](Layer<Real>& layer, const Blobs& bottom, const Blobs& top) { layer.LayerSetUp(bottom, top); })
      .def("reshape", [](Layer<Real>& layer, const Blobs& bottom, const Blobs& top) { layer.Reshape(bottom, top); });
}
