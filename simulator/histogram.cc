#include "simulator/histogram.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace baton::simulator {
namespace {

constexpr double kSmallest = 1e-9;  // bins begin here
const double kLogBin = std::log(1.01);

size_t BinOf(double value) {
  return value <= kSmallest ? 0 : 1 + static_cast<size_t>(std::log(value / kSmallest) / kLogBin);
}

}  // namespace

void Histogram::Add(double value, double count) {
  if (count <= 0) return;
  const size_t bin = BinOf(value);
  if (bin >= bins_.size()) bins_.resize(bin + 1, 0);
  bins_[bin] += count;
  count_ += count;
  sum_ += value * count;
}

double Histogram::Percentile(double p) const {
  double sum = 0;
  for (size_t bin = 0; bin < bins_.size(); ++bin) {
    sum += bins_[bin];
    if (sum > 0 && sum >= p * count_) {
      return bin == 0 ? 0 : kSmallest * std::exp(kLogBin * static_cast<double>(bin));
    }
  }
  return 0;
}

double Histogram::ShareWithin(double value) const {
  double sum = 0;
  const size_t last = std::min(BinOf(value) + 1, bins_.size());
  for (size_t bin = 0; bin < last; ++bin) sum += bins_[bin];
  return count_ > 0 ? sum / count_ : 0;
}

}  // namespace baton::simulator
