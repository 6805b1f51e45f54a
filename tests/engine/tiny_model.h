#pragma once

// Small llama models with random weights of any format, written as GGUF, sound or with one fault.

#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "common/status_macros.h"
#include "kernels/half.h"
#include "model_file/gguf.h"
#include "tests/common/temp_dir.h"
#include "tests/model_file/gguf_writer.h"

namespace baton::engine {

struct TinySpec {
  uint32_t layers = 3;
  uint32_t embedding = 256;
  uint32_t heads = 4;
  uint32_t kv_heads = 2;
  uint32_t head_dim = 64;
  uint32_t feed_forward = 512;
  uint32_t vocab = 320;
  uint32_t context = 256;
  bool tied = true;
  DType weights = DType::kF32;
  DType norms = DType::kF32;
  uint32_t seed = 1;

  // Faults and additions, by key or tensor name.
  std::set<std::string> omit = {};
  std::map<std::string, uint32_t> ints = {};
  std::map<std::string, float> floats = {};
  std::map<std::string, std::string> strings = {};
  std::map<std::string, std::vector<float>> extra_vectors = {};
  std::map<std::string, std::vector<uint64_t>> shapes = {};  // instead of the right one, F32
  std::vector<std::string> vocabulary = {};                  // tokenizer.ggml.tokens
  std::vector<int32_t> token_types = {};
};

namespace tiny {

inline void PutHalf(std::string& bytes, size_t at, float value) {
  const uint16_t half = kernels::FloatToHalf(value);
  std::memcpy(bytes.data() + at, &half, sizeof half);
}

// One block of a block format: random quants, and scales that give values of about `spread`.
inline std::string RandomBlock(DType dtype, float spread, std::mt19937& random) {
  std::string bytes(static_cast<size_t>(Traits(dtype).block_bytes), '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  switch (dtype) {
    case DType::kQ8_0:
      PutHalf(bytes, 0, spread / 74);
      break;
    case DType::kQ4_0:
      for (char& byte : bytes) {  // -8 has no +8 beside it: no -8, for a mean of 0
        if ((byte & 0x0f) == 0) byte |= 0x08;
        if ((byte & 0xf0) == 0) byte |= static_cast<char>(0x80);
      }
      PutHalf(bytes, 0, spread / 4.6f);
      break;
    case DType::kQ5_0:
      PutHalf(bytes, 0, spread / 9.2f);
      break;
    case DType::kQ4_1:
      PutHalf(bytes, 0, spread / 4.6f);
      PutHalf(bytes, 2, spread / 4.6f * -7.5f);
      break;
    case DType::kQ5_1:
      PutHalf(bytes, 0, spread / 9.2f);
      PutHalf(bytes, 2, spread / 9.2f * -15.5f);
      break;
    case DType::kQ4_K:
      PutHalf(bytes, 0, spread / 240);
      PutHalf(bytes, 2, spread / 240 * 7.5f);
      break;
    case DType::kQ5_K:
      PutHalf(bytes, 0, spread / 480);
      PutHalf(bytes, 2, spread / 480 * 15.5f);
      break;
    case DType::kQ6_K:
      PutHalf(bytes, 208, spread / 1360);
      break;
    default:
      BATON_CHECK(false, "a block format");
  }
  return bytes;
}

inline std::string RandomMatrix(DType dtype, uint64_t rows, uint64_t cols, std::mt19937& random) {
  const float spread = 1 / std::sqrt(static_cast<float>(cols));
  std::normal_distribution<float> normal(0, spread);
  std::string bytes;
  for (uint64_t i = 0; i < rows * cols; i += Traits(dtype).block_elements) {
    const float value = normal(random);
    const uint16_t half = dtype == DType::kF16
                              ? kernels::FloatToHalf(value)
                              : static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
    if (dtype == DType::kF32) {
      bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
    } else if (dtype == DType::kF16 || dtype == DType::kBF16) {
      bytes.append(reinterpret_cast<const char*>(&half), sizeof half);
    } else {
      bytes += RandomBlock(dtype, spread, random);
    }
  }
  return bytes;
}

// 1 and a little.
inline std::string RandomNorm(DType dtype, uint64_t count, std::mt19937& random) {
  std::normal_distribution<float> normal(1, 0.1f);
  std::string bytes;
  for (uint64_t i = 0; i < count; ++i) {
    const float value = normal(random);
    const uint16_t half = kernels::FloatToHalf(value);
    if (dtype == DType::kF32) bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
    if (dtype == DType::kF16) bytes.append(reinterpret_cast<const char*>(&half), sizeof half);
  }
  return bytes;
}

class Writer {
 public:
  explicit Writer(const TinySpec& spec) : spec_(spec), random_(spec.seed) {}

  std::string Bytes() {
    Metadata();
    Matrix("token_embd.weight", spec_.vocab, spec_.embedding);
    Norm("output_norm.weight");
    if (!spec_.tied) Matrix("output.weight", spec_.vocab, spec_.embedding);
    for (uint32_t layer = 0; layer < spec_.layers; ++layer) {
      const std::string prefix = "blk." + std::to_string(layer) + ".";
      const uint64_t query_dim = uint64_t{spec_.heads} * spec_.head_dim;
      const uint64_t kv_dim = uint64_t{spec_.kv_heads} * spec_.head_dim;
      Norm(prefix + "attn_norm.weight");
      Matrix(prefix + "attn_q.weight", query_dim, spec_.embedding);
      Matrix(prefix + "attn_k.weight", kv_dim, spec_.embedding);
      Matrix(prefix + "attn_v.weight", kv_dim, spec_.embedding);
      Matrix(prefix + "attn_output.weight", spec_.embedding, query_dim);
      Norm(prefix + "ffn_norm.weight");
      Matrix(prefix + "ffn_gate.weight", spec_.feed_forward, spec_.embedding);
      Matrix(prefix + "ffn_up.weight", spec_.feed_forward, spec_.embedding);
      Matrix(prefix + "ffn_down.weight", spec_.embedding, spec_.feed_forward);
    }
    for (const auto& [name, values] : spec_.extra_vectors) {
      writer_.AddTensor(name, DType::kF32, {values.size()},
                        {reinterpret_cast<const char*>(values.data()), values.size() * 4});
    }
    return writer_.Bytes();
  }

 private:
  void Metadata() {
    std::map<std::string, uint32_t> ints = {
        {"llama.block_count", spec_.layers},
        {"llama.embedding_length", spec_.embedding},
        {"llama.feed_forward_length", spec_.feed_forward},
        {"llama.attention.head_count", spec_.heads},
        {"llama.attention.head_count_kv", spec_.kv_heads},
        {"llama.attention.key_length", spec_.head_dim},
        {"llama.attention.value_length", spec_.head_dim},
        {"llama.context_length", spec_.context},
        {"tokenizer.ggml.eos_token_id", 2},
    };
    std::map<std::string, float> floats = {{"llama.attention.layer_norm_rms_epsilon", 1e-5f}};
    std::map<std::string, std::string> strings = {{"general.architecture", "llama"},
                                                  {"general.name", "tiny"}};
    for (const auto& [key, value] : spec_.ints) ints[key] = value;
    for (const auto& [key, value] : spec_.floats) floats[key] = value;
    for (const auto& [key, value] : spec_.strings) strings[key] = value;
    for (const std::string& key : spec_.omit) {
      ints.erase(key);
      floats.erase(key);
      strings.erase(key);
    }
    for (const auto& [key, value] : strings) writer_.Add(key, value);
    for (const auto& [key, value] : ints) writer_.AddU32(key, value);
    for (const auto& [key, value] : floats) writer_.AddF32(key, value);
    if (!spec_.vocabulary.empty()) {
      writer_.AddStrings("tokenizer.ggml.tokens", spec_.vocabulary);
      writer_.AddNumbers("tokenizer.ggml.token_type", test::GgufWriter::kI32, spec_.token_types);
    }
  }

  void Matrix(const std::string& name, uint64_t rows, uint64_t cols) {
    if (spec_.omit.contains(name)) return;
    if (const auto wrong = spec_.shapes.find(name); wrong != spec_.shapes.end()) {
      uint64_t elements = 1;
      for (const uint64_t size : wrong->second) elements *= size;
      writer_.AddTensor(name, DType::kF32, wrong->second, std::string(elements * 4, '\0'));
      return;
    }
    writer_.AddTensor(name, spec_.weights, {cols, rows},
                      RandomMatrix(spec_.weights, rows, cols, random_));
  }

  void Norm(const std::string& name) {
    if (spec_.omit.contains(name)) return;
    const std::string bytes = RandomNorm(spec_.norms, spec_.embedding, random_);
    writer_.AddTensor(name, spec_.norms, {spec_.embedding}, bytes);
  }

  const TinySpec& spec_;
  std::mt19937 random_;
  test::GgufWriter writer_;
};

}  // namespace tiny

// The model as an open file; nothing stays on disk.
inline std::shared_ptr<const GgufFile> OpenTiny(const TinySpec& spec) {
  const test::TempDir directory;
  const std::string path = directory.File("tiny.gguf");
  std::FILE* file = std::fopen(path.c_str(), "wb");
  BATON_CHECK(file != nullptr, "the test directory is writable");
  const std::string bytes = tiny::Writer(spec).Bytes();
  BATON_CHECK(std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size(), "disk has room");
  std::fclose(file);
  auto opened = GgufFile::Open(path);
  BATON_CHECK(opened.ok(), "the writer writes sound files");
  return *opened;
}

}  // namespace baton::engine
