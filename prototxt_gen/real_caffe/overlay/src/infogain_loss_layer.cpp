// InfogainLoss as Caffe 1.0 has it: softmax inside, then -sum over classes k of H[label][k] * log(p[k]).
// (The sources we build from are older there: they take probabilities and no axis, ignore_label or normalization.)

#include <algorithm>
#include <cmath>
#include <vector>

#include "caffe/layer_factory.hpp"
#include "caffe/layers/loss_layer.hpp"
#include "caffe/util/io.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

template <typename Dtype>
class InfogainLossLayer : public LossLayer<Dtype> {
 public:
  explicit InfogainLossLayer(const LayerParameter& param) : LossLayer<Dtype>(param) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual inline const char* type() const { return "InfogainLoss"; }
  virtual inline int ExactNumBottomBlobs() const { return -1; }
  virtual inline int MinBottomBlobs() const { return 2; }
  virtual inline int MaxBottomBlobs() const { return 3; }  // the third: H, if no file holds it
  virtual inline bool AllowForceBackward(const int bottom_index) const { return bottom_index == 0; }
  virtual inline int ExactNumTopBlobs() const { return -1; }
  virtual inline int MinTopBlobs() const { return 1; }
  virtual inline int MaxTopBlobs() const { return 2; }  // the second: the probabilities

 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
      const vector<Blob<Dtype>*>& bottom);

 private:
  const Blob<Dtype>& Gains(const vector<Blob<Dtype>*>& bottom) const {
    return bottom.size() > 2 ? *bottom[2] : gains_;
  }
  // Class of one prediction; -1 where it is to be ignored.
  int Label(const Blob<Dtype>& labels, int index) const;

  shared_ptr<Layer<Dtype> > softmax_;
  Blob<Dtype> probabilities_;
  Blob<Dtype> gains_;
  int outer_, classes_, inner_;
  Dtype normalizer_;
};

template <typename Dtype>
void InfogainLossLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  LossLayer<Dtype>::LayerSetUp(bottom, top);
  CHECK(!this->layer_param_.loss_param().has_normalize()) << "InfogainLoss knows normalization, not normalize";
  LayerParameter softmax_param;
  softmax_param.set_type("Softmax");
  softmax_param.mutable_softmax_param()->set_axis(this->layer_param_.infogain_loss_param().axis());
  softmax_ = LayerRegistry<Dtype>::CreateLayer(softmax_param);
  softmax_->SetUp(vector<Blob<Dtype>*>(1, bottom[0]), vector<Blob<Dtype>*>(1, &probabilities_));
  if (bottom.size() < 3) {
    CHECK(this->layer_param_.infogain_loss_param().has_source())
        << "the infogain matrix comes from a third bottom or from infogain_loss_param's source";
    BlobProto proto;
    ReadProtoFromBinaryFileOrDie(this->layer_param_.infogain_loss_param().source(), &proto);
    gains_.FromProto(proto);
  }
}

template <typename Dtype>
void InfogainLossLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  LossLayer<Dtype>::Reshape(bottom, top);
  softmax_->Reshape(vector<Blob<Dtype>*>(1, bottom[0]), vector<Blob<Dtype>*>(1, &probabilities_));
  const int axis = bottom[0]->CanonicalAxisIndex(this->layer_param_.infogain_loss_param().axis());
  outer_ = bottom[0]->count(0, axis);
  classes_ = bottom[0]->shape(axis);
  inner_ = bottom[0]->count(axis + 1);
  CHECK_EQ(outer_ * inner_, bottom[1]->count()) << "there must be one label for every prediction: "
      << bottom[0]->shape_string() << " and labels " << bottom[1]->shape_string();
  CHECK_EQ(Gains(bottom).count(), classes_ * classes_) << "the infogain matrix must be classes x classes";
  if (top.size() > 1) {
    top[1]->ReshapeLike(*bottom[0]);
  }
}

template <typename Dtype>
int InfogainLossLayer<Dtype>::Label(const Blob<Dtype>& labels, int index) const {
  const LossParameter& param = this->layer_param_.loss_param();
  const int label = static_cast<int>(labels.cpu_data()[index]);
  if (param.has_ignore_label() && label == param.ignore_label()) {
    return -1;
  }
  CHECK(label >= 0 && label < classes_) << "label " << label << " is not among " << classes_ << " classes";
  return label;
}

template <typename Dtype>
void InfogainLossLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  softmax_->Forward(vector<Blob<Dtype>*>(1, bottom[0]), vector<Blob<Dtype>*>(1, &probabilities_));
  const Dtype* gains = Gains(bottom).cpu_data();
  Dtype loss = 0;
  int valid = 0;
  for (int index = 0; index < outer_ * inner_; ++index) {
    const int label = Label(*bottom[1], index);
    if (label < 0) {
      continue;
    }
    const Dtype* p = probabilities_.cpu_data() + (index / inner_) * classes_ * inner_ + index % inner_;
    for (int k = 0; k < classes_; ++k) {
      loss -= gains[label * classes_ + k] * std::log(std::max(p[k * inner_], Dtype(kLOG_THRESHOLD)));
    }
    ++valid;
  }
  normalizer_ = this->GetNormalizer(this->layer_param_.loss_param().normalization(), outer_, inner_, valid);
  top[0]->mutable_cpu_data()[0] = loss / normalizer_;
  if (top.size() > 1) {
    top[1]->ShareData(probabilities_);
  }
}

template <typename Dtype>
void InfogainLossLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& bottom) {
  CHECK(!propagate_down[1]) << "InfogainLoss has no gradient for labels";
  CHECK(propagate_down.size() < 3 || !propagate_down[2]) << "InfogainLoss has no gradient for its matrix";
  if (!propagate_down[0]) {
    return;
  }
  const Dtype* gains = Gains(bottom).cpu_data();
  const Dtype weight = top[0]->cpu_diff()[0] / normalizer_;
  for (int index = 0; index < outer_ * inner_; ++index) {
    const int label = Label(*bottom[1], index);
    const int first = (index / inner_) * classes_ * inner_ + index % inner_;
    const Dtype* p = probabilities_.cpu_data() + first;
    Dtype* dx = bottom[0]->mutable_cpu_diff() + first;
    Dtype row_sum = 0;
    for (int k = 0; label >= 0 && k < classes_; ++k) { row_sum += gains[label * classes_ + k]; }
    for (int k = 0; k < classes_; ++k) {
      dx[k * inner_] = label < 0 ? 0 : weight * (p[k * inner_] * row_sum - gains[label * classes_ + k]);
    }
  }
}

INSTANTIATE_CLASS(InfogainLossLayer);
REGISTER_LAYER_CLASS(InfogainLoss);

}  // namespace caffe
