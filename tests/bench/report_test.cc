#include "bench/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/bench/bench_testing.h"

namespace baton::bench {
namespace {

using testing::HasSubstr;

const KernelRow kRow = {"matmul", "1 x 576 x 1536", "Q4_1", 2, 30.25, "GB/s", 40.5};

// Exactly these keys: scripts read them.
TEST(ReportTest, KernelRowAsJson) {
  EXPECT_EQ(KernelRowJson(kRow),
            R"({"name":"matmul","shape":"1 x 576 x 1536","type":"Q4_1","threads":2,)"
            R"("value":30.25,"unit":"GB/s","ceiling":40.5,"share":0.746914})");
}

TEST(ReportTest, WithoutACeilingThereIsNoShare) {
  KernelRow row = kRow;
  row.ceiling.reset();
  EXPECT_FALSE(row.share().has_value());
  EXPECT_THAT(KernelRowJson(row), HasSubstr(R"("ceiling":null,"share":null})"));
  EXPECT_THAT(KernelTableLine(row), HasSubstr("-"));
}

TEST(ReportTest, ShareIsValueOverCeiling) { EXPECT_DOUBLE_EQ(*kRow.share(), 30.25 / 40.5); }

TEST(ReportTest, TableColumnsStandUnderTheirHeads) {
  EXPECT_EQ(KernelTableHead().size(), KernelTableLine(kRow).size());
  EXPECT_THAT(KernelTableLine(kRow), HasSubstr("75%"));
  EXPECT_EQ(KernelTableHead().find("type"), KernelTableLine(kRow).find("Q4_1"));
}

TEST(ReportTest, EngineRowAsJson) {
  const EngineRow row = {"tiny.gguf", 2, 8, 512, 128, 1234.5, 67.25};
  EXPECT_EQ(EngineRowJson(row),
            R"({"model":"tiny.gguf","threads":2,"batch":8,"prompt_tokens":512,)"
            R"("generated_tokens":128,"prefill_tokens_per_s":1234.5,"decode_tokens_per_s":67.25})");
}

const TransferRow kTransfer = {"ucx tcp", kAtOnce,  65'536, 512, 33'554'432,
                               3.5,       9'586.98, 12'000, 4};

TEST(ReportTest, TransferRowAsJson) {
  EXPECT_EQ(TransferRowJson(kTransfer),
            R"({"transport":"ucx tcp","block_bytes":65536,"blocks":512,"bytes":33554432,)"
            R"("gb_per_s":3.5,"p50_us":9586.98,"p99_us":12000,"baseline_gb_per_s":4,)"
            R"("share":0.875})");
  TransferRow known = kTransfer;
  known.checksums = "known";
  EXPECT_THAT(TransferRowJson(known), HasSubstr(R"("share":0.875,"checksums":"known"})"));
}

TEST(ReportTest, TransferColumnsStandUnderTheirHeads) {
  EXPECT_EQ(TransferTableHead().size(), TransferTableLine(kTransfer).size());
  EXPECT_THAT(TransferTableLine(kTransfer), HasSubstr("88%"));
}

TEST(ReportTest, StringsAreEscaped) {
  EXPECT_EQ(JsonString("a\"b\\c\nd\xc3\xa9"), "\"a\\\"b\\\\c\\u000ad\xc3\xa9\"");
}

TEST(ReportTest, CeilingsAreTheirOwnCeilings) {
  Ceilings ceilings = RoundCeilings();
  EXPECT_EQ(CeilingRows(ceilings).size(), 7);
  for (const KernelRow& row : CeilingRows(ceilings)) {
    EXPECT_THAT(row.name, HasSubstr("ceiling_"));
    EXPECT_EQ(row.share(), 1.0) << row.name;
    EXPECT_EQ(row.threads, 2);
  }
  ceilings.bf16_gop_s.reset();
  ceilings.int8_gop_s.reset();
  EXPECT_EQ(CeilingRows(ceilings).size(), 5);
}

}  // namespace
}  // namespace baton::bench
