// GgufFile: reads what the writer wrote, and refuses everything unsound with the numbers.

#include "model_file/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <random>

#include "tests/model_file/gguf_writer.h"

namespace baton {
namespace {

using test::GgufWriter;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class GgufTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::shared_ptr<const GgufFile>> OpenBytes(const std::string& bytes) {
    const int fd = memfd_create("model.gguf", MFD_CLOEXEC);
    BATON_CHECK(fd >= 0, "memory files are available");
    BATON_CHECK(write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()),
                "a memory file takes all bytes");
    path_ = "/proc/self/fd/" + std::to_string(fd);
    auto file = GgufFile::Open(path_);
    close(fd);
    return file;
  }

  void ExpectRefused(const GgufWriter& writer, std::string_view reason) {
    const auto file = OpenBytes(writer.Bytes());
    ASSERT_FALSE(file.ok());
    EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(file.status().message()), HasSubstr(std::string(reason)));
  }

  std::string path_;  // of the latest file
};

// One entry of every kind, and two tensors.
GgufWriter SmallFile() {
  GgufWriter writer;
  writer.Add("general.architecture", "llama");
  writer.AddRaw<uint8_t>("u8", GgufWriter::kU8, 200);
  writer.AddRaw<int8_t>("i8", GgufWriter::kI8, -100);
  writer.AddRaw<uint16_t>("u16", GgufWriter::kU16, 60000);
  writer.AddRaw<int16_t>("i16", GgufWriter::kI16, -30000);
  writer.AddU32("u32", 4000000000u);
  writer.AddRaw<int32_t>("i32", GgufWriter::kI32, -2000000000);
  writer.AddRaw<uint64_t>("u64", GgufWriter::kU64, uint64_t{1} << 62);
  writer.AddRaw<int64_t>("i64", GgufWriter::kI64, -(int64_t{1} << 62));
  writer.AddF32("f32", 0.5f);
  writer.AddRaw<double>("f64", GgufWriter::kF64, 1e-300);
  writer.AddBool("yes", true);
  writer.AddStrings("tokens", {"a", "", "bc"});
  writer.AddNumbers<int32_t>("types", GgufWriter::kI32, {1, -2, 3});
  writer.AddNumbers<float>("scores", GgufWriter::kF32, {0.25f, -8.0f});
  writer.AddNumbers<uint8_t>("flags", GgufWriter::kBool, {1, 0, 1});
  writer.AddTensor("norm", DType::kF32, {3}, std::string(12, '\1'));
  writer.AddTensor("weight", DType::kQ8_0, {64, 2}, std::string(2 * 2 * 34, '\2'));
  return writer;
}

TEST_F(GgufTest, ReadsEveryKindOfValue) {
  const auto file = OpenBytes(SmallFile().Bytes());
  ASSERT_TRUE(file.ok()) << file.status();
  const GgufFile& gguf = **file;
  EXPECT_EQ(gguf.String("general.architecture").value(), "llama");
  EXPECT_EQ(gguf.Int("u8").value(), 200);
  EXPECT_EQ(gguf.Int("i8").value(), -100);
  EXPECT_EQ(gguf.Int("u16").value(), 60000);
  EXPECT_EQ(gguf.Int("i16").value(), -30000);
  EXPECT_EQ(gguf.Int("u32").value(), 4000000000);
  EXPECT_EQ(gguf.Int("i32").value(), -2000000000);
  EXPECT_EQ(gguf.Int("u64").value(), int64_t{1} << 62);
  EXPECT_EQ(gguf.Int("i64").value(), -(int64_t{1} << 62));
  EXPECT_EQ(gguf.Float("f32").value(), 0.5);
  EXPECT_EQ(gguf.Float("f64").value(), 1e-300);
  EXPECT_EQ(gguf.Float("u8").value(), 200.0);
  EXPECT_TRUE(gguf.BoolOr("yes", false).value());
  EXPECT_THAT(gguf.Strings("tokens").value(), ElementsAre("a", "", "bc"));
  EXPECT_THAT(gguf.Ints("types").value(), ElementsAre(1, -2, 3));
  EXPECT_THAT(gguf.Floats("scores").value(), ElementsAre(0.25, -8.0));
  EXPECT_EQ(std::get<std::vector<bool>>(*gguf.Find("flags")),
            (std::vector<bool>{true, false, true}));
}

TEST_F(GgufTest, TypedGettersSayWhatIsWrong) {
  const auto file = OpenBytes(SmallFile().Bytes());
  ASSERT_TRUE(file.ok()) << file.status();
  const GgufFile& gguf = **file;
  const absl::Status absent = gguf.Int("nowhere").status();
  EXPECT_EQ(absent.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(absent.message()), AllOf(HasSubstr("nowhere"), HasSubstr(path_)));
  const absl::Status wrong = gguf.Int("tokens").status();
  EXPECT_EQ(wrong.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(
      std::string(wrong.message()),
      AllOf(HasSubstr("'tokens' is an array of strings, not an integer"), HasSubstr(path_)));
  EXPECT_EQ(gguf.IntOr("nowhere", 7).value(), 7);
  EXPECT_EQ(gguf.IntOr("u8", 7).value(), 200);
  EXPECT_EQ(gguf.FloatOr("nowhere", 0.5).value(), 0.5);
  EXPECT_EQ(gguf.StringOr("nowhere", "x").value(), "x");
  EXPECT_FALSE(gguf.BoolOr("nowhere", false).value());
  EXPECT_FALSE(gguf.BoolOr("u8", false).ok());
}

TEST_F(GgufTest, ReadsTensors) {
  const auto file = OpenBytes(SmallFile().Bytes());
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ((*file)->tensors().size(), 2u);
  EXPECT_EQ((*file)->FindTensor("nothing"), nullptr);
  const GgufTensor* weight = (*file)->FindTensor("weight");
  ASSERT_NE(weight, nullptr);
  EXPECT_EQ(weight->dtype, DType::kQ8_0);
  EXPECT_EQ(weight->cols(), 64);
  EXPECT_EQ(weight->rows(), 2);
  EXPECT_EQ(weight->data.size(), 136u);
  EXPECT_EQ(weight->data.back(), std::byte{2});
  const GgufTensor* norm = (*file)->FindTensor("norm");
  ASSERT_NE(norm, nullptr);
  EXPECT_EQ(norm->rows(), 1);
  EXPECT_EQ(norm->data.front(), std::byte{1});
}

TEST_F(GgufTest, HintsChangeNoData) {
  const auto file = OpenBytes(SmallFile().Bytes());
  ASSERT_TRUE(file.ok()) << file.status();
  for (const GgufTensor& tensor : (*file)->tensors()) {
    const std::vector<std::byte> before(tensor.data.begin(), tensor.data.end());
    (*file)->WillRead(tensor);
    (*file)->WasRead(tensor);
    EXPECT_TRUE(std::ranges::equal(tensor.data, before)) << tensor.name;
  }
}

TEST_F(GgufTest, ReadsVersion2) {
  GgufWriter writer = SmallFile();
  writer.set_version(2);
  EXPECT_TRUE(OpenBytes(writer.Bytes()).ok());
}

TEST_F(GgufTest, DemoModelOpens) {
  const auto file = GgufFile::Open("models/SmolLM2-135M-Instruct.Q4_1.gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->file_bytes(), 98362432);
  EXPECT_EQ((*file)->tensors().size(), 272u);
  EXPECT_EQ((*file)->Int("llama.block_count").value(), 30);
  EXPECT_EQ((*file)->Strings("tokenizer.ggml.tokens").value().size(), 49152u);
  const GgufTensor* embedding = (*file)->FindTensor("token_embd.weight");
  ASSERT_NE(embedding, nullptr);
  EXPECT_EQ(embedding->dtype, DType::kQ8_0);
  EXPECT_THAT(embedding->shape, ElementsAre(576, 49152));
}

TEST_F(GgufTest, AbsentFileIsNotFound) {
  const absl::Status status = GgufFile::Open("no/such/absent.gguf").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("absent.gguf"));
}

TEST_F(GgufTest, RefusesTextDirectoriesAndEmptyFiles) {
  EXPECT_THAT(std::string(OpenBytes("Once upon a time").status().message()),
              HasSubstr("it starts with 'Once', not 'GGUF'"));
  EXPECT_THAT(std::string(OpenBytes("").status().message()), HasSubstr("is empty"));
  EXPECT_THAT(std::string(GgufFile::Open("tests").status().message()),
              HasSubstr("not a regular file"));
}

TEST_F(GgufTest, RefusesOtherVersions) {
  GgufWriter writer = SmallFile();
  writer.set_version(1);
  ExpectRefused(writer, "it has version 1; versions 2 and 3");
  writer.set_version(0x03000000);
  ExpectRefused(writer, "big-endian");
}

TEST_F(GgufTest, RefusesCountsTheFileCannotHold) {
  GgufWriter writer = SmallFile();
  writer.set_tensor_count(uint64_t{1} << 60);
  ExpectRefused(writer, "it claims 1152921504606846976 tensors");
  writer = SmallFile();
  writer.set_metadata_count(std::numeric_limits<uint64_t>::max());
  ExpectRefused(writer, "it claims 18446744073709551615 metadata entries");
}

TEST_F(GgufTest, RefusesUnsoundMetadata) {
  GgufWriter duplicate;
  duplicate.AddU32("k", 1);
  duplicate.AddU32("k", 2);
  ExpectRefused(duplicate, "key 'k' appears twice");

  GgufWriter unknown;
  unknown.AddRaw<uint32_t>("k", 13, 1);
  ExpectRefused(unknown, "key 'k' has unknown value type 13");

  GgufWriter nested;
  nested.AddArrayHeader("k", GgufWriter::kArray, 1);
  ExpectRefused(nested, "nested arrays");

  GgufWriter long_array;
  long_array.AddArrayHeader("k", GgufWriter::kString, uint64_t{1} << 61);
  ExpectRefused(long_array, "array 'k' claims 2305843009213693952 elements of at least 8 bytes");

  GgufWriter long_string;
  long_string.AddRaw<uint64_t>("k", GgufWriter::kString, std::numeric_limits<uint64_t>::max());
  ExpectRefused(long_string, "the value of 'k' at offset");

  GgufWriter not_bool;
  not_bool.AddRaw<uint8_t>("k", GgufWriter::kBool, 2);
  ExpectRefused(not_bool, "the value of 'k' is 2, not a bool");

  GgufWriter big;
  big.AddRaw<uint64_t>("k", GgufWriter::kU64, uint64_t{1} << 63);
  ExpectRefused(big, "9223372036854775808");

  GgufWriter empty_key;
  empty_key.AddU32("", 1);
  ExpectRefused(empty_key, "has an empty key");
}

TEST_F(GgufTest, RefusesArraysThatWouldFillMemory) {
  GgufWriter writer;
  writer.AddNumbers<uint8_t>("k", GgufWriter::kU8, std::vector<uint8_t>((1 << 24) + 1));
  ExpectRefused(writer, "array 'k' with 16777217 elements");
}

TEST_F(GgufTest, RefusesBadAlignment) {
  for (const uint32_t alignment : {0u, 3u, 48u, 1u << 31}) {
    GgufWriter writer;
    writer.AddU32("general.alignment", alignment);
    ExpectRefused(writer, "general.alignment is " + std::to_string(alignment));
  }
}

TEST_F(GgufTest, HonoursAlignment) {
  GgufWriter writer;
  writer.AddU32("general.alignment", 8);
  writer.AddTensorRaw("t", 0, {2}, 8);
  // The header ends at byte 90, so its data starts at 96 for both alignments; only offset 8
  // differs.
  const std::string bytes = writer.Bytes() + std::string(8, '\0') + std::string(8, '\5');
  const auto file = OpenBytes(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->FindTensor("t")->data.front(), std::byte{5});
}

TEST_F(GgufTest, RefusesUnsoundTensors) {
  const auto with_tensor = [](uint32_t type, std::vector<uint64_t> shape, uint64_t offset) {
    GgufWriter writer;
    writer.AddTensorRaw("t", type, shape, offset);
    return writer;
  };
  ExpectRefused(with_tensor(0, {}, 0), "tensor 't' has 0 dimensions");
  ExpectRefused(with_tensor(0, {1, 1, 1, 1, 1}, 0), "tensor 't' has 5 dimensions");
  ExpectRefused(with_tensor(0, {4, 0}, 0), "tensor 't' has size 0 in dimension 1");
  ExpectRefused(with_tensor(0, {uint64_t{1} << 40, uint64_t{1} << 40}, 0), "too many elements");
  ExpectRefused(with_tensor(0, {std::numeric_limits<uint64_t>::max()}, 0), "too many elements");
  ExpectRefused(with_tensor(16, {256}, 0), "type number 16, which Baton does not support");
  ExpectRefused(with_tensor(2, {48, 2}, 0), "rows of 48 elements, not a multiple of Q4_0's block");
  ExpectRefused(with_tensor(0, {4}, 7), "at offset 7, not a multiple of the alignment 32");
  ExpectRefused(with_tensor(0, {4}, 0), "takes 16 bytes at offset 0 of a data section of 0 bytes");
  ExpectRefused(with_tensor(0, {4}, ~uint64_t{31}),
                "takes 16 bytes at offset 18446744073709551584");

  GgufWriter twice;
  twice.AddTensor("t", DType::kF32, {4}, std::string(16, '\0'));
  twice.AddTensor("t", DType::kF32, {4}, std::string(16, '\0'));
  ExpectRefused(twice, "tensor 't' appears twice");
}

TEST_F(GgufTest, EveryTruncationIsRefused) {
  const std::string bytes = SmallFile().Bytes();
  ASSERT_TRUE(OpenBytes(bytes).ok());
  for (size_t length = 0; length < bytes.size(); ++length) {
    const auto file = OpenBytes(bytes.substr(0, length));
    ASSERT_FALSE(file.ok()) << "truncated to " << length << " of " << bytes.size();
    ASSERT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument);
  }
}

// Reads all that Open handed out, so that a sanitizer sees every byte it may reach.
uint64_t TouchEverything(const GgufFile& file) {
  uint64_t sum = 0;
  for (const GgufTensor& tensor : file.tensors()) {
    for (const std::byte b : tensor.data) sum += static_cast<uint64_t>(b);
  }
  if (const auto tokens = file.Strings("tokens"); tokens.ok()) {
    for (const std::string_view token : *tokens) {
      for (const char c : token) sum += static_cast<unsigned char>(c);
    }
  }
  return sum;
}

TEST_F(GgufTest, RandomDamageNeverCrashes) {
  const uint64_t seed = std::random_device{}();
  RecordProperty("seed", std::to_string(seed));
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const std::string sound = SmallFile().Bytes();
  uint64_t sum = 0;
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = sound;
    for (uint64_t flips = 1 + random() % 4; flips > 0; --flips) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    const auto file = OpenBytes(bytes);
    if (file.ok()) {
      sum += TouchEverything(**file);
    } else {
      ++refused;
      ASSERT_FALSE(file.status().message().empty());
    }
  }
  EXPECT_GT(refused, 0);
  EXPECT_GT(sum, 0u);
}

}  // namespace
}  // namespace baton
