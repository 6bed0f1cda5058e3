// caffe.Net. The underscored members are those that caffe/pycaffe.py turns into the public dictionaries.

#include "bindings.hpp"

#include <filesystem>
#include <fstream>
#include <optional>

#include "caffe/layers/memory_data_layer.hpp"

using caffe::Net;
using caffe::NetParameter;
using std::filesystem::path;

typedef py::array_t<Real, py::array::c_style> Array;

static void CheckReadable(const path& file) {
  if (!std::ifstream(file)) {
    throw std::runtime_error("Could not open file " + file.string());
  }
}

static boost::shared_ptr<Net<Real> > Load(const path& file, int phase, int level,
    const std::optional<std::vector<std::string> >& stages, const std::optional<path>& weights) {
  CheckReadable(file);
  if (weights) { CheckReadable(*weights); }
  const std::vector<std::string> names = stages.value_or(std::vector<std::string>());
  // Here and not as a call guard: that would also cover pybind11's own bookkeeping of the new object.
  py::gil_scoped_release without_gil;
  boost::shared_ptr<Net<Real> > net(
      new Net<Real>(file.string(), static_cast<caffe::Phase>(phase), level, &names));
  if (weights) { net->CopyTrainedLayersFrom(weights->string()); }
  return net;
}

static void Save(const Net<Real>& net, const path& file) {
  NetParameter param;
  net.ToProto(&param, false);
  caffe::WriteProtoToBinaryFile(param, file.string());
}

static void CheckInput(const Array& array, const char* name, std::vector<py::ssize_t> sizes) {
  if (array.ndim() != 4 || !std::equal(sizes.begin(), sizes.end(), array.shape() + 1)) {
    std::ostringstream text;
    text << name << " must be a C-contiguous float32 array of shape N x " << sizes[0] << " x " << sizes[1] << " x "
         << sizes[2];
    throw std::runtime_error(text.str());
  }
}

static void SetInputArrays(Net<Real>& net, Array data, Array labels) {
  caffe::MemoryDataLayer<Real>* layer = dynamic_cast<caffe::MemoryDataLayer<Real>*>(net.layers()[0].get());
  if (!layer) { throw std::runtime_error("set_input_arrays needs a net whose first layer is MemoryData"); }
  CheckInput(data, "data", {layer->channels(), layer->height(), layer->width()});
  CheckInput(labels, "labels", {1, 1, 1});
  if (data.shape(0) != labels.shape(0) || data.shape(0) % layer->batch_size() != 0) {
    throw std::runtime_error("data and labels must have one length, a multiple of the batch size");
  }
  layer->Reset(data.mutable_data(), labels.mutable_data(), data.shape(0));
}

void BindNet(py::module_& module) {
  typedef py::call_guard<py::gil_scoped_release> WithoutGil;
  py::class_<Net<Real>, boost::shared_ptr<Net<Real> > >(module, "Net", py::dynamic_attr())
      .def(py::init(&Load), py::arg("network_file"), py::arg("phase"), py::arg("level") = 0,
          py::arg("stages") = py::none(), py::arg("weights") = py::none())
      .def(py::init([](const path& file, const path& weights, int phase) {
             return Load(file, phase, 0, std::nullopt, weights);
           }))
      .def("_forward", &Net<Real>::ForwardFromTo, WithoutGil())
      .def("_backward", &Net<Real>::BackwardFromTo, WithoutGil())
      .def("reshape", &Net<Real>::Reshape, WithoutGil())
      .def("clear_param_diffs", &Net<Real>::ClearParamDiffs)
      .def("copy_from", [](Net<Real>& net, const path& file) {
             CheckReadable(file);
             net.CopyTrainedLayersFrom(file.string());
           }, WithoutGil())
      .def("share_with", &Net<Real>::ShareTrainedLayersWith)
      .def("_set_input_arrays", &SetInputArrays, py::arg().noconvert(), py::arg().noconvert(),
          py::keep_alive<1, 2>(), py::keep_alive<1, 3>())
      .def("save", &Save)
      .def("save_hdf5", [](const Net<Real>& net, const path& file) { net.ToHDF5(file.string()); })
      .def("load_hdf5", [](Net<Real>& net, const path& file) {
             CheckReadable(file);
             net.CopyTrainedLayersFromHDF5(file.string());
           })
      .def("_bottom_ids", &Net<Real>::bottom_ids)
      .def("_top_ids", &Net<Real>::top_ids)
      .def_property_readonly("name", &Net<Real>::name)
      .def_property_readonly("layers", [](const Net<Real>& net) { return net.layers(); })
      .def_property_readonly("_blobs", [](const Net<Real>& net) { return net.blobs(); })
      .def_property_readonly("_blob_loss_weights", &Net<Real>::blob_loss_weights)
      .def_property_readonly("_blob_names", &Net<Real>::blob_names)
      .def_property_readonly("_layer_names", &Net<Real>::layer_names)
      .def_property_readonly("_inputs", &Net<Real>::input_blob_indices)
      .def_property_readonly("_outputs", &Net<Real>::output_blob_indices);
}
