// Interp: bilinear resizing on corner-aligned grids, the layer of DeepLab and of the Residual Attention Network.
//
// Size of the top, from the first of these that is given (exactly one must be): a second bottom's height and width;
// zoom_factor z, in + (in - 1)(z - 1); shrink_factor s, (in - 1) / s + 1; height and width. `in` is what is left of
// the bottom after cropping -pad_beg rows and columns at the start and -pad_end at the end.
// Along each axis the source of destination d is d * (in - 1) / (out - 1), in single precision; 0 where out is 1.

#include <algorithm>
#include <vector>

#include "caffe/layer.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

// One destination's share in its two source positions along an axis.
template <typename Dtype>
struct Tap {
  int low, high;
  Dtype low_weight, high_weight;
};

template <typename Dtype>
vector<Tap<Dtype> > AxisTaps(int in, int out, int offset) {
  // float even for Dtype double: the positions are then those the published weights were trained with.
  const float step = out > 1 ? static_cast<float>(in - 1) / (out - 1) : 0.f;
  vector<Tap<Dtype> > taps(out);
  for (int dest = 0; dest < out; ++dest) {
    const float source = step * dest;
    const int low = std::min(static_cast<int>(source), in - 1);
    const Dtype fraction = source - low;
    taps[dest].low = offset + low;
    taps[dest].high = offset + std::min(low + 1, in - 1);
    taps[dest].low_weight = Dtype(1) - fraction;
    taps[dest].high_weight = fraction;
  }
  return taps;
}

template <typename Dtype>
class InterpLayer : public Layer<Dtype> {
 public:
  explicit InterpLayer(const LayerParameter& param) : Layer<Dtype>(param) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual inline const char* type() const { return "Interp"; }
  virtual inline int MinBottomBlobs() const { return 1; }
  virtual inline int MaxBottomBlobs() const { return 2; }
  virtual inline int ExactNumTopBlobs() const { return 1; }

 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
      const vector<Blob<Dtype>*>& bottom);

 private:
  int OutputSize(int in, int explicit_size) const;

  vector<Tap<Dtype> > rows_, columns_;
};

template <typename Dtype>
void InterpLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const InterpParameter& param = this->layer_param_.interp_param();
  const int specifications = param.has_zoom_factor() + param.has_shrink_factor()
      + (param.has_height() && param.has_width()) + (bottom.size() == 2);
  CHECK_EQ(specifications, 1) << "layer " << this->layer_param_.name()
      << ": the output size of Interp comes from exactly one of zoom_factor, shrink_factor, height and width,"
      << " or a second bottom; " << specifications << " are given";
  CHECK_LE(param.pad_beg(), 0) << "layer " << this->layer_param_.name() << ": Interp can crop but not pad";
  CHECK_LE(param.pad_end(), 0) << "layer " << this->layer_param_.name() << ": Interp can crop but not pad";
  CHECK_GE(param.zoom_factor(), 1) << "layer " << this->layer_param_.name() << ": zoom_factor must be positive";
  CHECK_GE(param.shrink_factor(), 1) << "layer " << this->layer_param_.name() << ": shrink_factor must be positive";
}

template <typename Dtype>
int InterpLayer<Dtype>::OutputSize(int in, int explicit_size) const {
  const InterpParameter& param = this->layer_param_.interp_param();
  if (param.has_zoom_factor()) {
    return in + (in - 1) * (param.zoom_factor() - 1);
  }
  return param.has_shrink_factor() ? (in - 1) / param.shrink_factor() + 1 : explicit_size;
}

template <typename Dtype>
void InterpLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const InterpParameter& param = this->layer_param_.interp_param();
  const bool like_second = bottom.size() == 2;
  const int in_height = bottom[0]->height() + param.pad_beg() + param.pad_end();
  const int in_width = bottom[0]->width() + param.pad_beg() + param.pad_end();
  CHECK(in_height > 0 && in_width > 0) << "layer " << this->layer_param_.name()
      << ": cropping leaves nothing of " << bottom[0]->shape_string();
  const int height = OutputSize(in_height, like_second ? bottom[1]->height() : param.height());
  const int width = OutputSize(in_width, like_second ? bottom[1]->width() : param.width());
  CHECK(height > 0 && width > 0) << "layer " << this->layer_param_.name()
      << ": output size " << height << "x" << width << " is not positive";
  top[0]->Reshape(bottom[0]->num(), bottom[0]->channels(), height, width);
  rows_ = AxisTaps<Dtype>(in_height, height, -param.pad_beg());
  columns_ = AxisTaps<Dtype>(in_width, width, -param.pad_beg());
}

template <typename Dtype>
void InterpLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const int planes = top[0]->num() * top[0]->channels();
  const int stride = bottom[0]->width();
  const Dtype* source = bottom[0]->cpu_data();
  Dtype* out = top[0]->mutable_cpu_data();
  for (int plane = 0; plane < planes; ++plane, source += bottom[0]->height() * stride) {
    for (const Tap<Dtype>& row : rows_) {
      const Dtype* upper = source + row.low * stride;
      const Dtype* lower = source + row.high * stride;
      for (const Tap<Dtype>& column : columns_) {
        *out++ = row.low_weight * (column.low_weight * upper[column.low] + column.high_weight * upper[column.high])
            + row.high_weight * (column.low_weight * lower[column.low] + column.high_weight * lower[column.high]);
      }
    }
  }
}

template <typename Dtype>
void InterpLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& bottom) {
  if (bottom.size() == 2 && propagate_down[1]) {  // it lends its size only
    caffe_set(bottom[1]->count(), Dtype(0), bottom[1]->mutable_cpu_diff());
  }
  if (!propagate_down[0]) {
    return;
  }
  const int planes = top[0]->num() * top[0]->channels();
  const int stride = bottom[0]->width();
  const Dtype* gradient = top[0]->cpu_diff();
  Dtype* target = bottom[0]->mutable_cpu_diff();
  caffe_set(bottom[0]->count(), Dtype(0), target);
  for (int plane = 0; plane < planes; ++plane, target += bottom[0]->height() * stride) {
    for (const Tap<Dtype>& row : rows_) {
      Dtype* upper = target + row.low * stride;
      Dtype* lower = target + row.high * stride;
      for (const Tap<Dtype>& column : columns_) {
        const Dtype value = *gradient++;
        upper[column.low] += row.low_weight * column.low_weight * value;
        upper[column.high] += row.low_weight * column.high_weight * value;
        lower[column.low] += row.high_weight * column.low_weight * value;
        lower[column.high] += row.high_weight * column.high_weight * value;
      }
    }
  }
}

INSTANTIATE_CLASS(InterpLayer);
REGISTER_LAYER_CLASS(Interp);

}  // namespace caffe
