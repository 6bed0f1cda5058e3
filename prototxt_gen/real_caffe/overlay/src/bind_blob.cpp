// caffe.Blob and caffe.BlobVec: n-dimensional arrays whose .data and .diff are NumPy views, not copies.

#include "bindings.hpp"

#include <pybind11/stl_bind.h>

using caffe::Blob;
using caffe::SyncedMemory;

// The view keeps its memory alive, not the blob: after a growing reshape an old view is stale but never dangling.
static py::array View(const Blob<Real>& blob, Real* values, const boost::shared_ptr<SyncedMemory>& memory) {
  py::capsule owner(new boost::shared_ptr<SyncedMemory>(memory),
      [](void* held) { delete static_cast<boost::shared_ptr<SyncedMemory>*>(held); });
  return py::array_t<Real>(std::vector<py::ssize_t>(blob.shape().begin(), blob.shape().end()), values, owner);
}

static std::vector<int> Shape(const py::args& sizes) {
  std::vector<int> shape;
  for (const py::handle& size : sizes) { shape.push_back(size.cast<int>()); }
  return shape;
}

void BindBlob(py::module_& module) {
  py::class_<Blob<Real>, boost::shared_ptr<Blob<Real> > >(module, "Blob")
      .def_property_readonly("shape", [](const Blob<Real>& blob) { return blob.shape(); })
      .def_property_readonly("num", &Blob<Real>::num)
      .def_property_readonly("channels", &Blob<Real>::channels)
      .def_property_readonly("height", &Blob<Real>::height)
      .def_property_readonly("width", &Blob<Real>::width)
      .def_property_readonly("count", static_cast<int (Blob<Real>::*)() const>(&Blob<Real>::count))
      .def("reshape", [](Blob<Real>& blob, const py::args& sizes) { blob.Reshape(Shape(sizes)); })
      .def_property_readonly("data",
          [](Blob<Real>& blob) { return View(blob, blob.mutable_cpu_data(), blob.data()); })
      .def_property_readonly("diff",
          [](Blob<Real>& blob) { return View(blob, blob.mutable_cpu_diff(), blob.diff()); });
  py::bind_vector<BlobVec, boost::shared_ptr<BlobVec> >(module, "BlobVec")
      .def("add_blob", [](BlobVec& blobs, const py::args& sizes) {
        blobs.push_back(boost::shared_ptr<Blob<Real> >(new Blob<Real>(Shape(sizes))));
      });
}
