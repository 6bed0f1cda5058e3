// SigmoidCrossEntropyLoss as Caffe 1.0 has it, with ignore_label and normalization.
// (The sources we build from are older there: they always divide by the batch size.)

#include <cmath>
#include <vector>

#include "caffe/layers/loss_layer.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

template <typename Dtype>
class SigmoidCrossEntropyLossLayer : public LossLayer<Dtype> {
 public:
  explicit SigmoidCrossEntropyLossLayer(const LayerParameter& param) : LossLayer<Dtype>(param) {}
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual inline const char* type() const { return "SigmoidCrossEntropyLoss"; }

 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
      const vector<Blob<Dtype>*>& bottom);

 private:
  LossParameter_NormalizationMode Normalization() const;
  bool Ignored(Dtype target) const {
    const LossParameter& param = this->layer_param_.loss_param();
    return param.has_ignore_label() && static_cast<int>(target) == param.ignore_label();
  }

  Dtype normalizer_;
};

template <typename Dtype>
void SigmoidCrossEntropyLossLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  LossLayer<Dtype>::Reshape(bottom, top);
  CHECK_EQ(bottom[0]->count(), bottom[1]->count()) << "predictions " << bottom[0]->shape_string()
      << " and targets " << bottom[1]->shape_string() << " differ in number";
}

// The default is the batch size, unlike that of the other losses.
template <typename Dtype>
LossParameter_NormalizationMode SigmoidCrossEntropyLossLayer<Dtype>::Normalization() const {
  const LossParameter& param = this->layer_param_.loss_param();
  if (param.has_normalization()) {
    return param.normalization();
  }
  return param.has_normalize() && param.normalize() ? LossParameter_NormalizationMode_VALID
                                                    : LossParameter_NormalizationMode_BATCH_SIZE;
}

template <typename Dtype>
void SigmoidCrossEntropyLossLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  const Dtype* x = bottom[0]->cpu_data();
  const Dtype* target = bottom[1]->cpu_data();
  Dtype loss = 0;
  int valid = 0;
  for (int i = 0; i < bottom[0]->count(); ++i) {
    if (Ignored(target[i])) {
      continue;
    }
    // log(1 + exp(-|x|)) cannot overflow.
    loss += std::max(x[i], Dtype(0)) - x[i] * target[i] + std::log(1 + std::exp(-std::abs(x[i])));
    ++valid;
  }
  normalizer_ = this->GetNormalizer(Normalization(), bottom[0]->shape(0), bottom[0]->count(1), valid);
  top[0]->mutable_cpu_data()[0] = loss / normalizer_;
}

template <typename Dtype>
void SigmoidCrossEntropyLossLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top,
    const vector<bool>& propagate_down, const vector<Blob<Dtype>*>& bottom) {
  CHECK(!propagate_down[1]) << "SigmoidCrossEntropyLoss has no gradient for targets";
  if (!propagate_down[0]) {
    return;
  }
  const Dtype weight = top[0]->cpu_diff()[0] / normalizer_;
  const Dtype* x = bottom[0]->cpu_data();
  const Dtype* target = bottom[1]->cpu_data();
  Dtype* dx = bottom[0]->mutable_cpu_diff();
  for (int i = 0; i < bottom[0]->count(); ++i) {
    const Dtype probability = Dtype(0.5) * std::tanh(Dtype(0.5) * x[i]) + Dtype(0.5);
    dx[i] = Ignored(target[i]) ? 0 : weight * (probability - target[i]);
  }
}

INSTANTIATE_CLASS(SigmoidCrossEntropyLossLayer);
REGISTER_LAYER_CLASS(SigmoidCrossEntropyLoss);

}  // namespace caffe
