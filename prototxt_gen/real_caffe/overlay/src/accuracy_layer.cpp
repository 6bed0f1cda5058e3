// Accuracy with Caffe 1.0's rule for ties: a label is among the top k if fewer than k other classes score as high or
// higher. (The sources we build from are older there: they sort, and give a tie to the higher class.)

#include <vector>

#include "caffe/layer.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {

template <typename Dtype>
class AccuracyLayer : public Layer<Dtype> {
 public:
  explicit AccuracyLayer(const LayerParameter& param) : Layer<Dtype>(param) {}
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual inline const char* type() const { return "Accuracy"; }
  virtual inline int ExactNumBottomBlobs() const { return 2; }
  virtual inline int MinTopBlobs() const { return 1; }
  virtual inline int MaxTopBlobs() const { return 2; }  // the second: accuracy of each class

 protected:
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top);
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
      const vector<Blob<Dtype>*>& bottom);

 private:
  bool IsHit(const Dtype* scores, int label) const;

  int axis_, outer_, classes_, inner_;
};

template <typename Dtype>
void AccuracyLayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const AccuracyParameter& param = this->layer_param_.accuracy_param();
  axis_ = bottom[0]->CanonicalAxisIndex(param.axis());
  outer_ = bottom[0]->count(0, axis_);
  classes_ = bottom[0]->shape(axis_);
  inner_ = bottom[0]->count(axis_ + 1);
  CHECK_LE(param.top_k(), classes_) << "top_k is more than there are classes";
  CHECK_EQ(outer_ * inner_, bottom[1]->count()) << "there must be one label for every prediction: "
      << bottom[0]->shape_string() << " and labels " << bottom[1]->shape_string();
  top[0]->Reshape(vector<int>());
  if (top.size() > 1) {
    top[1]->Reshape(vector<int>(1, classes_));
  }
}

template <typename Dtype>
bool AccuracyLayer<Dtype>::IsHit(const Dtype* scores, int label) const {
  int others = -1;  // the label's own score is counted too
  for (int k = 0; k < classes_; ++k) {
    others += scores[k * inner_] >= scores[label * inner_];
  }
  return others < static_cast<int>(this->layer_param_.accuracy_param().top_k());
}

template <typename Dtype>
void AccuracyLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const AccuracyParameter& param = this->layer_param_.accuracy_param();
  vector<int> hits(classes_, 0), counts(classes_, 0);
  int all_hits = 0, all = 0;
  for (int index = 0; index < outer_ * inner_; ++index) {
    const int label = static_cast<int>(bottom[1]->cpu_data()[index]);
    if (param.has_ignore_label() && label == param.ignore_label()) {
      continue;
    }
    CHECK(label >= 0 && label < classes_) << "label " << label << " is not among " << classes_ << " classes";
    const int first = (index / inner_) * classes_ * inner_ + index % inner_;
    const bool hit = IsHit(bottom[0]->cpu_data() + first, label);
    hits[label] += hit;
    all_hits += hit;
    ++counts[label];
    ++all;
  }
  top[0]->mutable_cpu_data()[0] = all ? Dtype(all_hits) / all : 0;
  for (int k = 0; top.size() > 1 && k < classes_; ++k) {
    top[1]->mutable_cpu_data()[k] = counts[k] ? Dtype(hits[k]) / counts[k] : 0;
  }
}

template <typename Dtype>
void AccuracyLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& bottom) {
  CHECK(!propagate_down[0] && !propagate_down[1]) << "Accuracy has no gradient: it cannot be a loss";
}

INSTANTIATE_CLASS(AccuracyLayer);
REGISTER_LAYER_CLASS(Accuracy);

}  // namespace caffe
