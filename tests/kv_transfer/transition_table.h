#pragma once

// Holds a state machine against its table of legal transitions: every sequence of inputs, up to a
// length, from each of some beginnings.

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <set>
#include <string_view>
#include <tuple>
#include <vector>

namespace baton::kv_transfer {

// One column of the table with one choice of parameters. `apply` says whether it can happen here.
template <typename Driven>
struct Input {
  size_t column = 0;
  std::function<bool(Driven&)> apply;
};

// A row of the table: a state by its letter, and for each column the letters of the states to which
// that input may lead; "" where it cannot happen.
template <size_t kColumns>
struct TableRow {
  char state;
  std::array<std::string_view, kColumns> next;
};

// Driven is copied at every step. It has state(), a letter; actions(), how many came out so far;
// and CheckStep(before, column), which may hold more against a step.
template <typename Driven, size_t kColumns>
class TransitionWalk {
 public:
  TransitionWalk(std::vector<TableRow<kColumns>> table, std::vector<Input<Driven>> inputs)
      : table_(std::move(table)), inputs_(std::move(inputs)) {}

  void From(const Driven& driven, int steps) {
    for (const Input<Driven>& input : inputs_) {
      if (steps == 0 || testing::Test::HasFailure()) return;
      Driven next = driven;
      if (!input.apply(next)) continue;
      const char before = driven.state(), after = next.state();
      EXPECT_NE(Cell(before, input.column).find(after), std::string_view::npos)
          << "column " << input.column << " leads from " << before << " to " << after;
      next.CheckStep(before, input.column);
      seen_.insert({before, input.column, after});
      From(next, steps - 1);
    }
  }
  // What the table allows does happen.
  void CheckEverythingSeen() const {
    for (const TableRow<kColumns>& row : table_) {
      for (size_t column = 0; column < kColumns; ++column) {
        for (const char after : row.next[column]) {
          EXPECT_TRUE(seen_.contains({row.state, column, after}))
              << "column " << column << " never led from " << row.state << " to " << after;
        }
      }
    }
  }

 private:
  std::string_view Cell(char state, size_t column) const {
    for (const TableRow<kColumns>& row : table_) {
      if (row.state == state) return row.next[column];
    }
    return "";
  }

  const std::vector<TableRow<kColumns>> table_;
  const std::vector<Input<Driven>> inputs_;
  std::set<std::tuple<char, size_t, char>> seen_;
};

}  // namespace baton::kv_transfer
