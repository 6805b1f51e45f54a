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

// Checksums that are computed within the transfer, as all of it is: the plain case.
inline constexpr char kAtOnce[] = "at once";

// How fast the KV handoff moved blocks. GB/s are 1e9 bytes a second.
struct TransferRow {
  std::string transport;            // "shm", "ucx tcp", "inproc"
  std::string checksums = kAtOnce;  // of the source; else "known" before, or "none"
  int64_t block_bytes = 0;
  int32_t blocks = 0;   // of one transfer
  int64_t bytes = 0;    // of one transfer
  double gb_per_s = 0;  // of the median transfer
  double p50_us = 0;    // of a transfer, from its Offer to its SourceDone
  double p99_us = 0;
  double baseline_gb_per_s = 0;

  double share() const { return baseline_gb_per_s > 0 ? gb_per_s / baseline_gb_per_s : 0; }
};

// {"transport","block_bytes","blocks","bytes","gb_per_s","p50_us","p99_us","baseline_gb_per_s",
// "share"}, and "checksums" where they are not kAtOnce.
std::string TransferRowJson(const TransferRow& row);
std::string TransferTableHead();
std::string TransferTableLine(const TransferRow& row);

// `text` between quotes, as JSON wants it.
std::string JsonString(const std::string& text);

}  // namespace baton::bench
