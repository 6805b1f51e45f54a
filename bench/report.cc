#include "bench/report.h"

#include <fmt/format.h>

namespace baton::bench {
namespace {

std::string JsonNumber(std::optional<double> number) {
  return number ? fmt::format("{:.6g}", *number) : "null";
}

std::string Percent(std::optional<double> share) {
  return share ? fmt::format("{:.0f}%", *share * 100) : "-";
}

}  // namespace

std::optional<double> KernelRow::share() const {
  if (!ceiling || *ceiling <= 0) return std::nullopt;
  return value / *ceiling;
}

std::vector<KernelRow> CeilingRows(const Ceilings& ceilings) {
  std::vector<KernelRow> rows;
  const auto add = [&](const char* name, std::string shape, const char* type, double value,
                       const char* unit) {
    rows.push_back({name, std::move(shape), type, ceilings.threads, value, unit, value});
  };
  const std::string dram = fmt::format("{} MiB", ceilings.dram_buffer_bytes >> 20);
  add("ceiling_dram", dram, "read", ceilings.dram_read_gb_s, "GB/s");
  add("ceiling_dram", fmt::format("{} B pieces", kScatteredBytes), "read",
      ceilings.scattered_read_gb_s, "GB/s");
  const std::string l3 = fmt::format("{} MiB", ceilings.caches.l3_bytes >> 20);
  add("ceiling_l3", l3, "read", ceilings.l3_read_gb_s, "GB/s");
  const std::string l2 = fmt::format("{} KiB a core", ceilings.caches.l2_bytes >> 10);
  add("ceiling_l2", l2, "read", ceilings.l2_read_gb_s, "GB/s");
  add("ceiling_dot", ceilings.isa, "FP32", ceilings.fp32_gop_s, "GFLOP/s");
  if (ceilings.bf16_gop_s) {
    add("ceiling_dot", ceilings.isa, "BF16", *ceilings.bf16_gop_s, "GFLOP/s");
  }
  if (ceilings.int8_gop_s) {
    add("ceiling_dot", ceilings.isa, "INT8", *ceilings.int8_gop_s, "GOP/s");
  }
  return rows;
}

std::string JsonString(const std::string& text) {
  std::string json = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      json += '\\';
      json += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      json += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      json += c;
    }
  }
  return json + '"';
}

std::string KernelRowJson(const KernelRow& row) {
  return fmt::format(
      R"({{"name":{},"shape":{},"type":{},"threads":{},"value":{},"unit":{},"ceiling":{},)"
      R"("share":{}}})",
      JsonString(row.name), JsonString(row.shape), JsonString(row.type), row.threads,
      JsonNumber(row.value), JsonString(row.unit), JsonNumber(row.ceiling),
      JsonNumber(row.share()));
}

std::string KernelTableHead() {
  return fmt::format("{:<18} {:<22} {:<5} {:>7} {:>10} {:<8} {:>8} {:>6}", "name", "shape", "type",
                     "threads", "value", "unit", "ceiling", "share");
}

std::string KernelTableLine(const KernelRow& row) {
  return fmt::format("{:<18} {:<22} {:<5} {:>7} {:>10.1f} {:<8} {:>8} {:>6}", row.name, row.shape,
                     row.type, row.threads, row.value, row.unit,
                     row.ceiling ? fmt::format("{:.1f}", *row.ceiling) : "-", Percent(row.share()));
}

std::string EngineRowJson(const EngineRow& row) {
  return fmt::format(
      R"({{"model":{},"threads":{},"batch":{},"prompt_tokens":{},"generated_tokens":{},)"
      R"("prefill_tokens_per_s":{},"decode_tokens_per_s":{}}})",
      JsonString(row.model), row.threads, row.batch, row.prompt_tokens, row.generated_tokens,
      JsonNumber(row.prefill_tokens_per_s), JsonNumber(row.decode_tokens_per_s));
}

std::string TransferRowJson(const TransferRow& row) {
  return fmt::format(
      R"({{"transport":{},"block_bytes":{},"blocks":{},"bytes":{},"gb_per_s":{},"p50_us":{},)"
      R"("p99_us":{},"baseline_gb_per_s":{},"share":{}{}}})",
      JsonString(row.transport), row.block_bytes, row.blocks, row.bytes, JsonNumber(row.gb_per_s),
      JsonNumber(row.p50_us), JsonNumber(row.p99_us), JsonNumber(row.baseline_gb_per_s),
      JsonNumber(row.share()),
      row.checksums == kAtOnce ? "" : ",\"checksums\":" + JsonString(row.checksums));
}

std::string TransferTableHead() {
  return fmt::format("{:<9} {:<9} {:>11} {:>7} {:>10} {:>8} {:>9} {:>9} {:>8} {:>6}", "transport",
                     "checksums", "block bytes", "blocks", "bytes", "GB/s", "p50 us", "p99 us",
                     "baseline", "share");
}

std::string TransferTableLine(const TransferRow& row) {
  return fmt::format("{:<9} {:<9} {:>11} {:>7} {:>10} {:>8.2f} {:>9.0f} {:>9.0f} {:>8.2f} {:>6}",
                     row.transport, row.checksums, row.block_bytes, row.blocks, row.bytes,
                     row.gb_per_s, row.p50_us, row.p99_us, row.baseline_gb_per_s,
                     Percent(row.share()));
}

}  // namespace baton::bench
