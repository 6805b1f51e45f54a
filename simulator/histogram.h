#pragma once

// Counts by value in bins of 1%, for percentiles of hundreds of millions of gaps.

#include <vector>

namespace baton::simulator {

class Histogram {
 public:
  void Add(double value, double count = 1);
  double count() const { return count_; }
  double mean() const { return count_ > 0 ? sum_ / count_ : 0; }
  // The upper end of the bin that percentile p (0 to 1) lies in: at most 1% too high. 0 when empty.
  double Percentile(double p) const;
  // Share of the values at or below, to the bin.
  double ShareWithin(double value) const;

 private:
  std::vector<double> bins_;
  double count_ = 0, sum_ = 0;
};

}  // namespace baton::simulator
