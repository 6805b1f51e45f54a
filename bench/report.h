#pragma once

// Rows of benchmarks as JSON, one object a line, and as tables for people.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bench/ceilings.h"

namespace baton::bench {

struct KernelRow {
  std::string name;   // "matmul"
  std::string shape;  // "512 x 1536 x 576"
  std::string type;   // "Q4_1"
  int32_t threads = 1;
  double value = 0;
  std::string unit;
  std::optional<double> ceiling;  // that binds, in `unit`; absent where there is none

  // Of the ceiling; absent without one.
  std::optional<double> share() const;
};

// Ceilings as rows: each is its own ceiling.
std::vector<KernelRow> CeilingRows(const Ceilings& ceilings);

// {"name","shape","type","threads","value","unit","ceiling","share"}; null for what is absent.
std::string KernelRowJson(const KernelRow& row);
std::string KernelTableHead();
std::string KernelTableLine(const KernelRow& row);

struct EngineRow {
  std::string model;
  int32_t threads = 1;
  int32_t batch = 1;
  int32_t prompt_tokens = 0;
  int32_t generated_tokens = 0;
  double prefill_tokens_per_s = 0;  // of all sequences together
  double decode_tokens_per_s = 0;
  double dram_gb_s = 0;  // what DRAM gave around decode, 0 if it was not asked; not in the JSON
};

// {"model","threads","batch","prompt_tokens","generated_tokens","prefill_tokens_per_s",
// "decode_tokens_per_s"}
std::string EngineRowJson(const EngineRow& row);

// `text` between quotes, as JSON wants it.
std::string JsonString(const std::string& text);

}  // namespace baton::bench
