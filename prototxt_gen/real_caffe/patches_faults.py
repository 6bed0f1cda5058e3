"""Changes to Caffe's published sources, continued: what reads out of bounds, ends the process or loses a file."""

from __future__ import annotations

from prototxt_gen.real_caffe.patch import Patch

_HDF5_SHAPE = """\
  if (blob_dims != blob->shape()) {
    CHECK_EQ(blob->count(), 0) << dataset_name_ << ": shapes differ, the net has " << blob->shape_string();
    blob->Reshape(blob_dims);
  }
"""

_WRITE_PROTO = """\
  const string temporary = string(filename) + ".tmp";
  fstream output(temporary.c_str(), ios::out | ios::trunc | ios::binary);
  const bool written = proto.SerializeToOstream(&output) && output.flush();
  output.close();
  if (!written) { std::remove(temporary.c_str()); }
  CHECK(written && std::rename(temporary.c_str(), filename) == 0) << filename << " cannot be written";
}
"""
_CLOSE_HDF5 = """\
  CHECK(H5Fclose(file_hid) >= 0 && std::rename(temporary.c_str(), {name}.c_str()) == 0)
      << {name} << " cannot be written";
}}
"""
_SAVE_HISTORY = "oss.str(), *history_[i]);\n  }\n  H5Gclose(history_hid);\n"

# A full disk or a kill must leave the snapshot that was there: written beside it, then renamed.
SNAPSHOTS = (
    Patch(
        "src/caffe/util/io.cpp",
        "  fstream output(filename, ios::out | ios::trunc | ios::binary);\n"
        "  CHECK(proto.SerializeToOstream(&output));\n}\n",
        _WRITE_PROTO,
    ),
    Patch(
        "src/caffe/net.cpp",
        "hid_t file_hid = H5Fcreate(filename.c_str(),",
        'const string temporary = filename + ".tmp";\n  hid_t file_hid = H5Fcreate(temporary.c_str(),',
    ),
    Patch("src/caffe/net.cpp", "  }\n  H5Fclose(file_hid);\n}\n", "  }\n" + _CLOSE_HDF5.format(name="filename")),
    Patch(
        "src/caffe/solvers/sgd_solver.cpp",
        "hid_t file_hid = H5Fcreate(snapshot_filename.c_str(),",
        'const string temporary = snapshot_filename + ".tmp";\n  hid_t file_hid = H5Fcreate(temporary.c_str(),',
    ),
    Patch(
        "src/caffe/solvers/sgd_solver.cpp",
        _SAVE_HISTORY + "  H5Fclose(file_hid);\n}\n",
        _SAVE_HISTORY + _CLOSE_HDF5.format(name="snapshot_filename"),
    ),
)

# Reads out of bounds, silent reshapes and the like.
FAULTS = (
    Patch(  # BVLC reads up to 2 GiB; here, VGG-16 was too much
        "src/caffe/util/io.cpp", "SetTotalBytesLimit(536870912)", "SetTotalBytesLimit(2147483647)", count=2
    ),
    Patch(  # fewer shapes than inputs were read out of bounds
        "src/caffe/util/upgrade_proto.cpp",
        '    LayerParameter* layer_param = net_param->add_layer();\n    layer_param->set_name("input");',
        "    const int sizes = has_shape ? net_param->input_shape_size() : net_param->input_dim_size() / 4;\n"
        '    CHECK_GE(sizes, net_param->input_size()) << "every input needs an input_shape or four input_dim";\n'
        '    LayerParameter* layer_param = net_param->add_layer();\n    layer_param->set_name("input");',
    ),
    Patch(  # an integer division by zero ends the process
        "src/caffe/solvers/sgd_solver.cpp",
        "    this->current_step_ = this->iter_ / this->param_.stepsize();",
        "    CHECK_GT(this->param_.stepsize(), 0) << \"lr_policy 'step' needs a stepsize\";\n"
        "    this->current_step_ = this->iter_ / this->param_.stepsize();",
    ),
    Patch(
        "src/caffe/layers/eltwise_layer.cpp",
        "  // for (int i = 1; i < bottom.size(); ++i) {\n"
        "  //   CHECK(bottom[i]->shape() == bottom[0]->shape());\n  // }",
        "  for (int i = 1; i < bottom.size(); ++i) {\n    CHECK(bottom[i]->shape() == bottom[0]->shape()) << "
        '"bottoms differ, " << bottom[0]->shape_string() << " and " << bottom[i]->shape_string();\n  }',
    ),
    Patch(
        "src/caffe/layers/scale_layer.cpp",
        "  // for (int i = 0; i < scale->num_axes(); ++i) {\n"
        "  //   CHECK_EQ(bottom[0]->shape(axis_ + i), scale->shape(i))\n"
        '  //       << "dimension mismatch between bottom[0]->shape(" << axis_ + i\n'
        '  //       << ") and scale->shape(" << i << ")";\n  // }',
        "  for (int i = 0; i < scale->num_axes(); ++i) {\n"
        '    CHECK_EQ(bottom[0]->shape(axis_ + i), scale->shape(i)) << "axis " << axis_ + i << " of the bottom";\n  }',
    ),
    Patch(  # a net whose prototxt carries its blobs
        "src/caffe/layers/scale_layer.cpp",
        "    bias_param_id_ = this->blobs_.size();\n    this->blobs_.resize(bias_param_id_ + 1);\n",
        "    const bool given = this->blobs_.size() + bottom.size() == 3;\n"
        "    bias_param_id_ = this->blobs_.size() - given;\n    this->blobs_.resize(bias_param_id_ + 1);\n"
        "    if (given) { bias_layer_->blobs()[0] = this->blobs_[bias_param_id_]; }\n",
    ),
    Patch(  # one copy of a row is enough
        "src/caffe/layers/crop_layer.cpp",
        "in memory\n    for (int i = 0; i < top[0]->shape(cur_dim); ++i) {",
        "in memory\n    {",
    ),
    Patch(
        "src/caffe/blob.cpp",
        'LOG(FATAL) << "Trying to copy blobs of different sizes.";',
        'LOG(FATAL) << "shapes differ, " << source.shape_string() << " and " << shape_string();',
    ),
    Patch("src/caffe/blob.cpp", "LOG(FATAL) << source.shape()[0] <<", "if (false) LOG(FATAL) << source.shape()[0] <<"),
    Patch("src/caffe/util/hdf5.cpp", "  blob->Reshape(blob_dims);\n", _HDF5_SHAPE),
    Patch(  # a mean file with a crop, as every ImageNet net has
        "src/caffe/data_transformer.cpp",
        "    CHECK_EQ(cv_cropped_image.rows, data_mean_.height());\n"
        "    CHECK_EQ(cv_cropped_image.cols, data_mean_.width());\n",
        "",
    ),
    Patch(  # a mirrored image minus the mean that is not mirrored
        "src/caffe/data_transformer.cpp",
        "h_off + h_idx_real) * img_width\n              + w_off + w_idx_real;",
        "h_off + h) * img_width + w_off + w;",
    ),
    Patch(  # two nets that read one database are no workers that share it
        "src/caffe/data_reader.cpp",
        "body_ = weak.lock();",
        "body_.reset();",
    ),
    Patch(  # opened by the reading thread, a database that is not there ended the process
        "src/caffe/data_reader.cpp",
        "      new_queue_pairs_() {\n",
        "      new_queue_pairs_() {\n  {\n"
        "    const shared_ptr<db::DB> database(db::GetDB(param.data_param().backend()));\n"
        "    database->Open(param.data_param().source(), db::READ);\n"
        "    const shared_ptr<db::Cursor> first(database->NewCursor());\n"
        '    CHECK(first->valid()) << param.data_param().source() << " is empty";\n'
        "  }\n",
    ),
)
