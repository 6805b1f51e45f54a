#pragma once

// Enumerates every way to make a sequence of choices: run the scenario with Choose() wherever it
// could go on in several ways, then again while Next() is true.
//
//   Schedule schedule;
//   do { schedule.Restart(); Run(schedule); } while (schedule.Next());

#include <cstddef>
#include <string>
#include <vector>

namespace baton::router {

class Schedule {
 public:
  void Restart() { position_ = 0; }

  // In [0, ways); the scenario must be deterministic apart from its choices.
  size_t Choose(size_t ways) {
    if (position_ == path_.size()) path_.push_back({0, ways});
    return path_[position_++].choice;
  }

  // Moves to the next path; false when all were taken.
  bool Next() {
    while (!path_.empty() && path_.back().choice + 1 == path_.back().ways) path_.pop_back();
    if (path_.empty()) return false;
    ++path_.back().choice;
    return true;
  }

  std::string ToString() const {
    std::string text;
    for (const Step& step : path_) text += std::to_string(step.choice) + ' ';
    return text;
  }

 private:
  struct Step {
    size_t choice;
    size_t ways;
  };
  std::vector<Step> path_;
  size_t position_ = 0;
};

}  // namespace baton::router
