// BN: batch normalisation and its affine transform in one layer, as in the Residual Attention Network's Caffe.
//
// Blobs, each 1 x C x 1 x 1: slope, bias, moving mean, moving inverse standard deviation 1 / sqrt(var + eps), with the
// biased variance and eps already inside. Training: moving <- momentum * moving + (1 - momentum) * of this batch.
// TEST phase and `frozen: true` normalise with the moving statistics, which are then constants of the gradient too.
//
// Two things differ from the layer of that name in the forks. There, TEST phase uses the moving statistics forward but
// the batch's formula backward; here both passes agree. There, blobs without a ParamSpec are the solver's to decay;
// here the moving statistics, and all four blobs of a frozen layer as caffe.proto promises, get lr_mult 0.

#include <cmath>
#include <vector>

#include "caffe/filler.hpp"
#include "caffe/layer.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

template <typename Dtype>
class BNLayer : public Layer<Dtype> {
 public:
  explicit BNLayer(const LayerParameter& param) : Layer<Dtype>(param) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual inline const char* type() const { return "BN"; }
  virtual inline int ExactNumBottomBlobs() const { return 1; }
  virtual inline int ExactNumTopBlobs() const { return 1; }

 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
      const vector<Blob<Dtype>*>& bottom);

 private:
  enum Role { SLOPE, BIAS, MEAN, INVERSE_STD, ROLES };

  bool uses_batch() const { return !this->layer_param_.bn_param().frozen() && this->phase_ == TRAIN; }
  void CreateBlobs();
  void KeepFromSolver();
  void BatchStatistics(const Dtype* data);
  void UpdateMoving();

  int num_, channels_, plane_;
  Blob<Dtype> normalized_;  // (x - mean) * inverse standard deviation, for the backward pass
  Blob<Dtype> mean_, inverse_std_;  // those of the last forward pass
};

template <typename Dtype>
void BNLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  CHECK_GE(bottom[0]->num_axes(), 2) << "layer " << this->layer_param_.name() << ": BN needs a channel axis";
  channels_ = bottom[0]->shape(1);
  if (this->blobs_.size() == 0) {
    CreateBlobs();
  }
  KeepFromSolver();
  this->param_propagate_down_.resize(ROLES, true);
}

template <typename Dtype>
void BNLayer<Dtype>::CreateBlobs() {
  const BNParameter& param = this->layer_param_.bn_param();
  this->blobs_.resize(ROLES);
  for (int role = 0; role < ROLES; ++role) {
    this->blobs_[role].reset(new Blob<Dtype>(1, channels_, 1, 1));
  }
  shared_ptr<Filler<Dtype> >(GetFiller<Dtype>(param.slope_filler()))->Fill(this->blobs_[SLOPE].get());
  shared_ptr<Filler<Dtype> >(GetFiller<Dtype>(param.bias_filler()))->Fill(this->blobs_[BIAS].get());
  caffe_set(channels_, Dtype(0), this->blobs_[MEAN]->mutable_cpu_data());
  caffe_set(channels_, Dtype(1), this->blobs_[INVERSE_STD]->mutable_cpu_data());
}

template <typename Dtype>
void BNLayer<Dtype>::KeepFromSolver() {
  const bool frozen = this->layer_param_.bn_param().frozen();
  for (int role = 0; role < ROLES; ++role) {
    const bool unspecified = this->layer_param_.param_size() == role;
    ParamSpec* spec = unspecified ? this->layer_param_.add_param() : this->layer_param_.mutable_param(role);
    if (frozen || (unspecified && role >= MEAN)) {
      spec->set_lr_mult(0);
      spec->set_decay_mult(0);
    }
  }
}

template <typename Dtype>
void BNLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  CHECK_EQ(bottom[0]->shape(1), channels_) << "layer " << this->layer_param_.name()
      << ": BN cannot change its number of channels";
  num_ = bottom[0]->shape(0);
  plane_ = bottom[0]->count(2);
  top[0]->ReshapeLike(*bottom[0]);
  normalized_.ReshapeLike(*bottom[0]);
  mean_.Reshape(1, channels_, 1, 1);
  inverse_std_.Reshape(1, channels_, 1, 1);
}

template <typename Dtype>
void BNLayer<Dtype>::BatchStatistics(const Dtype* data) {
  const Dtype eps = this->layer_param_.bn_param().eps();
  for (int c = 0; c < channels_; ++c) {
    double sum = 0, squares = 0;  // double: a plane may have a million values
    for (int n = 0; n < num_; ++n) {
      const Dtype* x = data + (n * channels_ + c) * plane_;
      for (int i = 0; i < plane_; ++i) { sum += x[i]; }
    }
    const double mean = sum / (double(num_) * plane_);
    for (int n = 0; n < num_; ++n) {
      const Dtype* x = data + (n * channels_ + c) * plane_;
      for (int i = 0; i < plane_; ++i) { squares += (x[i] - mean) * (x[i] - mean); }
    }
    mean_.mutable_cpu_data()[c] = mean;
    inverse_std_.mutable_cpu_data()[c] = 1 / std::sqrt(squares / (double(num_) * plane_) + eps);
  }
}

template <typename Dtype>
void BNLayer<Dtype>::UpdateMoving() {
  const Dtype momentum = this->layer_param_.bn_param().momentum();
  caffe_cpu_axpby(channels_, 1 - momentum, mean_.cpu_data(), momentum, this->blobs_[MEAN]->mutable_cpu_data());
  caffe_cpu_axpby(channels_, 1 - momentum, inverse_std_.cpu_data(), momentum,
      this->blobs_[INVERSE_STD]->mutable_cpu_data());
}

template <typename Dtype>
void BNLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  if (uses_batch()) {
    BatchStatistics(bottom[0]->cpu_data());
    UpdateMoving();
  } else {
    caffe_copy(channels_, this->blobs_[MEAN]->cpu_data(), mean_.mutable_cpu_data());
    caffe_copy(channels_, this->blobs_[INVERSE_STD]->cpu_data(), inverse_std_.mutable_cpu_data());
  }
  const Dtype* x = bottom[0]->cpu_data();
  Dtype* normalized = normalized_.mutable_cpu_data();
  Dtype* y = top[0]->mutable_cpu_data();
  for (int image_channel = 0; image_channel < num_ * channels_; ++image_channel) {
    const int c = image_channel % channels_;
    const Dtype mean = mean_.cpu_data()[c], inverse_std = inverse_std_.cpu_data()[c];
    const Dtype slope = this->blobs_[SLOPE]->cpu_data()[c], bias = this->blobs_[BIAS]->cpu_data()[c];
    for (int i = 0; i < plane_; ++i, ++x, ++normalized, ++y) {
      *normalized = (*x - mean) * inverse_std;
      *y = *normalized * slope + bias;
    }
  }
}

template <typename Dtype>
void BNLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& bottom) {
  const bool frozen = this->layer_param_.bn_param().frozen();
  const double values = double(num_) * plane_;
  const Dtype* dy = top[0]->cpu_diff();
  const Dtype* normalized = normalized_.cpu_data();
  for (int c = 0; c < channels_; ++c) {
    double sum = 0, product = 0;  // of dy, and of dy with the normalised input: the gradients of bias and slope
    for (int n = 0; n < num_; ++n) {
      const int start = (n * channels_ + c) * plane_;
      for (int i = start; i < start + plane_; ++i) {
        sum += dy[i];
        product += double(dy[i]) * normalized[i];
      }
    }
    if (!frozen && this->param_propagate_down_[SLOPE]) { this->blobs_[SLOPE]->mutable_cpu_diff()[c] += product; }
    if (!frozen && this->param_propagate_down_[BIAS]) { this->blobs_[BIAS]->mutable_cpu_diff()[c] += sum; }
    if (!propagate_down[0]) { continue; }
    // The batch's mean and variance depend on the input; moving statistics do not.
    const Dtype mean_term = uses_batch() ? sum / values : 0;
    const Dtype variance_term = uses_batch() ? product / values : 0;
    const Dtype scale = this->blobs_[SLOPE]->cpu_data()[c] * inverse_std_.cpu_data()[c];
    Dtype* dx = bottom[0]->mutable_cpu_diff();
    for (int n = 0; n < num_; ++n) {
      const int start = (n * channels_ + c) * plane_;
      for (int i = start; i < start + plane_; ++i) {
        dx[i] = scale * (dy[i] - mean_term - normalized[i] * variance_term);
      }
    }
  }
}

INSTANTIATE_CLASS(BNLayer);
REGISTER_LAYER_CLASS(BN);

}  // namespace caffe
