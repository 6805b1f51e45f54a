#include "bench/device_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <regex>
#include <utility>
#include <vector>

#include "bench/random_weights.h"
#include "common/status_macros.h"

namespace baton::bench {
namespace {

using kernels::KvDType;
using kernels::KvLayout;
using kernels::SequenceRows;

constexpr int32_t kEmbedding = 4096;
constexpr int32_t kFeedForward = 14336;
constexpr int32_t kHeads = 32;
constexpr int32_t kKvHeads = 8;
constexpr int32_t kHeadDim = 128;
constexpr int32_t kVocab = 128256;
constexpr int32_t kDeviceBlockTokens = 32;
constexpr int64_t kCopyFloats = int64_t{1} << 28;

struct Measured {
  std::string name, shape, type;
  double bytes = 0;  // of one call
  double ops = 0;    // where these are what counts
};

class DeviceBench {
 public:
  DeviceBench(kernels::Ops* ops, const DeviceBenchOptions& options,
              const std::function<void(const KernelRow&)>& on_row)
      : ops_(ops), options_(options), on_row_(on_row) {}

  absl::Status Run() {
    if (!options_.filter.empty()) {
      try {
        filter_.emplace(options_.filter);
      } catch (const std::regex_error& error) {
        return absl::InvalidArgumentError(fmt::format(
            "the filter '{}' is no regular expression: {}", options_.filter, error.what()));
      }
    }
    BATON_RETURN_IF_ERROR(MeasureCeilings());
    for (const DType dtype : {DType::kBF16, DType::kQ4_0, DType::kQ8_0}) {
      BATON_RETURN_IF_ERROR(MatMuls(dtype, kFeedForward, kEmbedding, {1, 32, 128, 512, 4096}));
    }
    BATON_RETURN_IF_ERROR(MatMuls(DType::kBF16, kEmbedding, kFeedForward, {1, 128}));
    BATON_RETURN_IF_ERROR(MatMuls(DType::kBF16, kKvHeads * kHeadDim, kEmbedding, {1, 128}));
    for (const KvDType dtype : {KvDType::kBF16, KvDType::kF16, KvDType::kFp8}) {
      BATON_RETURN_IF_ERROR(Attentions(dtype, "attention_decode", 1, 16384, 1));
      BATON_RETURN_IF_ERROR(Attentions(dtype, "attention_decode", 32, 2048, 1));
      BATON_RETURN_IF_ERROR(Attentions(dtype, "attention_decode", 128, 2048, 1));
      BATON_RETURN_IF_ERROR(Attentions(dtype, "attention_prefill", 1, 8192, 8192));
    }
    BATON_RETURN_IF_ERROR(Elementwise());
    BATON_RETURN_IF_ERROR(Draws());
    if (selected_ > 0) return absl::OkStatus();
    return absl::InvalidArgumentError(
        fmt::format("the filter '{}' matches nothing; kernels are matmul, attention_decode, "
                    "attention_prefill, rms_norm, draw",
                    options_.filter));
  }

 private:
  int32_t Size(int32_t size) const { return std::max(size / options_.divisor, 1); }
  // That of a matrix' side or head.
  int32_t Width(int32_t width) const { return std::max(width / options_.divisor / 128, 1) * 128; }

  bool Selected(const Measured& m) {
    const std::string name = fmt::format("{} {} {}", m.name, m.shape, m.type);
    if (filter_.has_value() && !std::regex_search(name, *filter_)) return false;
    ++selected_;
    if (options_.progress) options_.progress(name);
    return true;
  }

  absl::StatusOr<std::unique_ptr<kernels::Buffer>> Activations(int64_t count, uint64_t seed) {
    BATON_ASSIGN_OR_RETURN(std::unique_ptr<kernels::Buffer> buffer, ops_->NewBuffer(count * 4));
    const std::vector<float> values = RandomActivations(count, seed);
    ops_->ToDevice(buffer->data(), values.data(), count * 4);
    return buffer;
  }

  // Of one call.
  double Time(const std::function<void()>& call) {
    float word;
    const auto wait = [&] {
      const kernels::CopyPiece piece{&word, waited_->data(), sizeof word};
      ops_->ToHost({&piece, 1});
    };
    return MedianSeconds(options_.repeats,
                         [&] {
                           for (int32_t i = 0; i < options_.calls; ++i) call();
                           wait();
                         }) /
           options_.calls;
  }

  absl::Status Measure(const Measured& m, const std::function<void()>& call) {
    BATON_RETURN_IF_ERROR(CheckStop(options_.stop));
    const double seconds = Time(call);
    const bool in_ops = m.ops > 0;
    const double ceiling = in_ops ? tensor_gop_s_ : copy_gb_s_;
    KernelRow row{m.name,
                  m.shape,
                  m.type,
                  1,
                  (in_ops ? m.ops : m.bytes) / seconds / 1e9,
                  in_ops ? "GFLOP/s" : "GB/s"};
    if (ceiling > 0) row.ceiling = ceiling;
    on_row_(row);
    return absl::OkStatus();
  }

  absl::Status MeasureCeilings() {
    BATON_ASSIGN_OR_RETURN(waited_, ops_->NewBuffer(sizeof(float)));
    const int64_t floats = kCopyFloats / options_.divisor;
    BATON_ASSIGN_OR_RETURN(const auto from, ops_->NewBuffer(floats * 4));
    BATON_ASSIGN_OR_RETURN(const auto to, ops_->NewBuffer(floats * 4));
    copy_gb_s_ = 8.0 * static_cast<double>(floats) /
                 Time([&] { ops_->Copy(to->floats(), from->floats(), floats); }) / 1e9;
    tensor_gop_s_ = ops_->MeasureTensorGopS(4096 / options_.divisor + 1);
    on_row_({"ceiling", "copy, read and written", "", 1, copy_gb_s_, "GB/s", copy_gb_s_});
    if (tensor_gop_s_ > 0) {
      on_row_({"ceiling", "tensor cores, mma.m16n8k16", "BF16", 1, tensor_gop_s_, "GFLOP/s",
               tensor_gop_s_});
    }
    return absl::OkStatus();
  }

  absl::Status MatMuls(DType dtype, int32_t full_columns, int32_t full_cols,
                       std::initializer_list<int32_t> row_counts) {
    const int32_t columns = Width(full_columns);
    const int32_t cols = Width(full_cols);
    std::unique_ptr<kernels::Matrix> matrix;
    for (const int32_t full_rows : row_counts) {
      const int32_t rows = Size(full_rows);
      Measured m{"matmul", fmt::format("{} x {} x {}", rows, columns, cols),
                 std::string(Traits(dtype).name)};
      if (!Selected(m)) continue;
      if (matrix == nullptr) {
        const auto bytes = RandomWeights(dtype, columns, cols, /*seed=*/1);
        BATON_ASSIGN_OR_RETURN(matrix, ops_->LoadMatrix({dtype, columns, cols, bytes}));
      }
      const double products = 2.0 * rows * columns * cols;
      m.bytes = static_cast<double>(matrix->bytes());
      m.ops = full_rows > 128 ? products : 0;
      BATON_ASSIGN_OR_RETURN(const auto x, Activations(int64_t{rows} * cols, 2));
      BATON_ASSIGN_OR_RETURN(const auto out, ops_->NewBuffer(int64_t{rows} * columns * 4));
      const kernels::Matrix* const weights = matrix.get();
      float* const to = out->floats();
      BATON_RETURN_IF_ERROR(Measure(m, [&] {
        ops_->MatMul({&weights, 1}, x->floats(), rows, {&to, 1}, /*add=*/false);
      }));
    }
    return absl::OkStatus();
  }

  // The last `full_rows` tokens of each sequence of so many.
  absl::Status Attentions(KvDType dtype, const char* name, int32_t full_batch, int32_t full_tokens,
                          int32_t full_rows) {
    const int32_t batch = Size(full_batch);
    const int32_t tokens = std::max(Size(full_tokens), full_rows > 1 ? 1 : 2);
    const int32_t rows = full_rows == 1 ? 1 : tokens;
    Measured m{name, fmt::format("{} x {}, {}:{} x {}", batch, tokens, kHeads, kKvHeads, kHeadDim),
               std::string(kernels::Traits(dtype).name)};
    if (!Selected(m)) return absl::OkStatus();
    const KvLayout layout{1, kKvHeads, kHeadDim, kDeviceBlockTokens, dtype};
    BATON_RETURN_IF_ERROR(ops_->CheckLayout(layout));
    const int32_t blocks = layout.BlocksFor(tokens);
    BATON_ASSIGN_OR_RETURN(const auto slab,
                           ops_->NewBuffer(int64_t{batch} * blocks * layout.block_bytes()));
    std::vector<std::vector<int32_t>> tables(static_cast<size_t>(batch));
    for (int32_t i = 0; i < batch * blocks; ++i) {  // sequences take turns
      tables[static_cast<size_t>(i % batch)].push_back(i);
    }
    BATON_RETURN_IF_ERROR(Fill(layout, slab->data(), tables, tokens));
    std::vector<SequenceRows> sequences;
    for (int32_t i = 0; i < batch; ++i) {
      sequences.push_back({tables[static_cast<size_t>(i)], tokens - rows, i * rows, rows});
    }
    const int64_t query_floats = int64_t{batch} * rows * kHeads * kHeadDim;
    BATON_ASSIGN_OR_RETURN(const auto q, Activations(query_floats, 4));
    BATON_ASSIGN_OR_RETURN(const auto out, ops_->NewBuffer(query_floats * 4));
    m.bytes = static_cast<double>(batch) * tokens * static_cast<double>(layout.bytes_per_token());
    if (full_rows > 1) m.ops = 2.0 * kHeads * kHeadDim * tokens * (tokens + 1.0);
    const kernels::AttentionShape shape{kHeads, 1 / std::sqrt(float{kHeadDim})};
    return Measure(m, [&] {
      ops_->Attention(shape, layout, slab->data(), 0, sequences, q->floats(), out->floats());
    });
  }

  absl::Status Fill(const KvLayout& layout, std::byte* slab,
                    const std::vector<std::vector<int32_t>>& tables, int32_t tokens) {
    const int32_t most = std::min(tokens, kDeviceBenchRows);
    const int64_t floats = int64_t{most} * kKvHeads * kHeadDim;
    BATON_ASSIGN_OR_RETURN(const auto values, Activations(floats, 3));
    BATON_ASSIGN_OR_RETURN(const auto query, ops_->NewBuffer(floats * 4));
    const kernels::Rope no_turn;  // a rotary_dim of 0
    for (const std::vector<int32_t>& table : tables) {
      for (int32_t first = 0; first < tokens; first += most) {
        const SequenceRows rows{table, first, 0, std::min(most, tokens - first)};
        ops_->RopeAndStoreKv(no_turn, layout, slab, 0, kKvHeads, {&rows, 1}, query->floats(),
                             values->floats(), values->floats());
      }
    }
    return absl::OkStatus();
  }

  absl::Status Elementwise() {
    const int32_t rows = Size(512);
    Measured m{"rms_norm", fmt::format("{} x {}", rows, kEmbedding), "F32"};
    if (!Selected(m)) return absl::OkStatus();
    m.bytes = 8.0 * rows * kEmbedding;
    BATON_ASSIGN_OR_RETURN(const auto x, Activations(int64_t{rows} * kEmbedding, 5));
    BATON_ASSIGN_OR_RETURN(const auto weight, Activations(kEmbedding, 6));
    BATON_ASSIGN_OR_RETURN(const auto out, ops_->NewBuffer(int64_t{rows} * kEmbedding * 4));
    return Measure(m, [&] {
      ops_->RmsNorm(x->floats(), weight->floats(), rows, kEmbedding, 1e-5f, out->floats());
    });
  }

  absl::Status Draws() {
    const int32_t rows = Size(128);
    const int32_t vocab = Size(kVocab);
    const std::pair<const char*, kernels::Draw> kinds[] = {
        {"greedy", {}},
        {"all", {.temperature = 1, .uniform = 0.5}},
        {"top_k 40", {.temperature = 1, .top_k = 40, .uniform = 0.5}},
        {"top_p 0.9", {.temperature = 0.1f, .top_p = 0.9f, .uniform = 0.5}}};
    for (const auto& [kind, draw] : kinds) {
      Measured m{"draw", fmt::format("{} x {}", rows, vocab), kind};
      if (!Selected(m)) continue;
      m.bytes = 4.0 * rows * vocab;
      BATON_ASSIGN_OR_RETURN(const auto logits, Activations(int64_t{rows} * vocab, 7));
      const std::vector<kernels::Draw> draws(static_cast<size_t>(rows), draw);
      std::vector<TokenId> tokens(static_cast<size_t>(rows));
      BATON_RETURN_IF_ERROR(
          Measure(m, [&] { ops_->DrawTokens(logits->floats(), vocab, draws, {}, tokens); }));
    }
    return absl::OkStatus();
  }

  kernels::Ops* const ops_;
  const DeviceBenchOptions& options_;
  const std::function<void(const KernelRow&)>& on_row_;
  std::optional<std::regex> filter_;
  std::unique_ptr<kernels::Buffer> waited_;
  double copy_gb_s_ = 0;
  double tensor_gop_s_ = 0;
  int32_t selected_ = 0;
};

}  // namespace

absl::Status RunDeviceBench(kernels::Ops* ops, const DeviceBenchOptions& options,
                            const std::function<void(const KernelRow&)>& on_row) {
  return DeviceBench(ops, options, on_row).Run();
}

}  // namespace baton::bench
