// What the files of the Python module _caffe share: pybind11 set up for Caffe's types, and who binds what.
#ifndef PROTOTXT_GEN_BINDINGS_HPP_
#define PROTOTXT_GEN_BINDINGS_HPP_

#include <pybind11/pybind11.h>

#include <pybind11/numpy.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <string>
#include <vector>

#include "caffe/caffe.hpp"
#include "caffe/sgd_solvers.hpp"

namespace py = pybind11;

typedef float Real;  // Python sees nets of float only, as Caffe's own binding does
typedef std::vector<boost::shared_ptr<caffe::Blob<Real> > > BlobVec;

PYBIND11_DECLARE_HOLDER_TYPE(T, boost::shared_ptr<T>)
PYBIND11_MAKE_OPAQUE(BlobVec)  // Python layers append to the one in C++

void BindBlob(py::module_& module);
void BindLayer(py::module_& module);
void BindNet(py::module_& module);
void BindSolver(py::module_& module);

#endif  // PROTOTXT_GEN_BINDINGS_HPP_
