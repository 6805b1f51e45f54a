#include "kernels/cuda/cuda_ops.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "common/status_macros.h"
#include "kernels/cuda/cuda_matrix.h"

namespace baton::kernels {
namespace cuda {
namespace {

constexpr Stream kStream = nullptr;
constexpr int32_t kLeastCapability = 80;
constexpr int32_t kMostHeadDim = 256;

void Must(const absl::Status& status, const char* op) {
  if (status.ok()) return;
  fmt::print(stderr, "the GPU failed in {}: {}\n", op, std::string(status.message()));
  std::abort();
}

class DeviceBuffer final : public Buffer {
 public:
  explicit DeviceBuffer(void* memory) : memory_(memory) {}
  ~DeviceBuffer() override { Free(memory_); }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  std::byte* data() override { return static_cast<std::byte*>(memory_); }

 private:
  void* const memory_;
};

class CudaMatrix final : public Matrix {
 public:
  static absl::StatusOr<std::unique_ptr<Matrix>> Load(const PackedWeights& packed) {
    auto matrix = std::make_unique<CudaMatrix>();
    matrix->weights_ = packed.shape;
    const auto value_bytes = static_cast<int64_t>(packed.values.size());
    const auto scale_bytes = static_cast<int64_t>(packed.scales.size() * sizeof(Scale));
    BATON_ASSIGN_OR_RETURN(void* values, Allocate(value_bytes));
    matrix->values_ = std::make_unique<DeviceBuffer>(values);
    matrix->weights_.values = values;
    BATON_RETURN_IF_ERROR(CopyToDevice(values, packed.values.data(), value_bytes));
    if (scale_bytes > 0) {
      BATON_ASSIGN_OR_RETURN(void* scales, Allocate(scale_bytes));
      matrix->scales_ = std::make_unique<DeviceBuffer>(scales);
      matrix->weights_.scales = static_cast<const Scale*>(scales);
      BATON_RETURN_IF_ERROR(CopyToDevice(scales, packed.scales.data(), scale_bytes));
    }
    matrix->bytes_ = value_bytes + scale_bytes;
    return matrix;
  }

  int64_t rows() const override { return weights_.rows; }
  int64_t cols() const override { return weights_.cols; }
  int64_t bytes() const override { return bytes_; }
  const Weights& weights() const { return weights_; }

 private:
  Weights weights_;
  std::unique_ptr<Buffer> values_, scales_;
  int64_t bytes_ = 0;
};

const Weights& WeightsOf(const Matrix* matrix) {
  return static_cast<const CudaMatrix*>(matrix)->weights();
}

Cache CacheOf(const KvLayout& layout, int32_t layer) {
  return {.dtype = layout.dtype,
          .together = Traits(layout.dtype).together,
          .kv_heads = layout.kv_heads,
          .head_dim = layout.head_dim,
          .block_tokens = layout.block_tokens,
          .data_bytes = layout.data_bytes(),
          .head_bytes = layout.head_bytes(),
          .block_bytes = layout.block_bytes(),
          .key_offset = layout.key_offset(layer, 0),
          .value_offset = layout.value_offset(layer, 0)};
}

template <typename T>
bool SameBytes(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Ops>> CudaOps::Create(const CudaOptions& options) {
  if (options.max_rows < 1 || options.max_rows > 65'535) {
    return absl::InvalidArgumentError(
        fmt::format("steps of {} rows are outside 1..65535", options.max_rows));
  }
  BATON_ASSIGN_OR_RETURN(DeviceInfo info, OpenDevice(options.gpu));
  if (info.capability < kLeastCapability) {
    return absl::FailedPreconditionError(
        fmt::format("GPU {} is {}: the kernels need compute capability {}.{}", options.gpu,
                    info.name, kLeastCapability / 10, kLeastCapability % 10));
  }
  if (!AllowAttention(std::min(info.shared_bytes, AttentionSharedBytes(kMostHeadDim))) ||
      !AllowDraw()) {
    return absl::FailedPreconditionError(fmt::format("GPU {} ({}) refuses the kernels: {}",
                                                     options.gpu, info.name,
                                                     std::string(LaunchError().message())));
  }
  return std::unique_ptr<Ops>(new CudaOps(std::move(info), options));
}

absl::Status CudaOps::CheckLayout(const KvLayout& layout) const {
  if (layout.head_dim <= kMostHeadDim &&
      AttentionSharedBytes(layout.head_dim) <= info_.shared_bytes) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(fmt::format(
      "heads of {} elements need {} bytes of a GPU block's {}; at most {} can be", layout.head_dim,
      AttentionSharedBytes(layout.head_dim), info_.shared_bytes, kMostHeadDim));
}

absl::StatusOr<std::unique_ptr<Buffer>> CudaOps::NewBuffer(int64_t bytes) {
  rounded_rows_ = {};
  BATON_RETURN_IF_ERROR(UseDevice(gpu_));
  BATON_ASSIGN_OR_RETURN(void* memory, Allocate(std::max<int64_t>(bytes, 1)));
  return std::make_unique<DeviceBuffer>(memory);
}

void CudaOps::ToDevice(void* to, const void* from, int64_t bytes) {
  rounded_rows_ = {};
  Must(UseDevice(gpu_), "choosing it");
  Must(CopyToDevice(to, from, bytes), "a copy to it");
}

void CudaOps::ToHost(std::span<const CopyPiece> pieces) {
  Must(UseDevice(gpu_), "choosing it");
  for (const CopyPiece& piece : pieces) {
    Must(StartCopyToHost(piece.to, piece.from, piece.bytes), "a copy from it");
  }
  Must(Synchronize(), "copies from it");
}

bool CudaOps::PinHost(std::span<std::byte> memory) {
  Must(UseDevice(gpu_), "choosing it");
  return Pin(memory.data(), std::ssize(memory)).ok();
}

void CudaOps::UnpinHost(std::span<std::byte> memory) {
  Must(UseDevice(gpu_), "choosing it");
  Unpin(memory.data());
}

void CudaOps::Copy(float* to, const float* from, int64_t count) {
  rounded_rows_ = {};
  Must(UseDevice(gpu_), "choosing it");
  Must(CopyOnDevice(to, from, count * int64_t{sizeof(float)}), "a copy");
}

void* CudaOps::Reserve(Scratch& scratch, int64_t bytes) {
  if (bytes > scratch.bytes) {
    scratch.buffer.reset();  // waits for what uses it
    absl::StatusOr<std::unique_ptr<Buffer>> buffer = NewBuffer(bytes);
    Must(buffer.status(), "reserving scratch memory");
    scratch.buffer = *std::move(buffer);
    scratch.bytes = bytes;
  }
  return scratch.buffer->data();
}

absl::StatusOr<std::unique_ptr<Matrix>> CudaOps::LoadMatrix(const HostMatrix& host) {
  BATON_RETURN_IF_ERROR(UseDevice(gpu_));
  BATON_ASSIGN_OR_RETURN(const PackedWeights packed, PackWeights(host));
  return CudaMatrix::Load(packed);
}

void CudaOps::Embed(const Matrix& table, std::span<const TokenId> tokens, float* out) {
  rounded_rows_ = {};
  Must(UseDevice(gpu_), "choosing it");
  void* const sent = Reserve(tokens_, max_rows_ * int64_t{sizeof(TokenId)});
  Must(staging_.Send(sent, tokens.data(), static_cast<int64_t>(tokens.size_bytes())), "embedding");
  LaunchEmbed(WeightsOf(&table), static_cast<const int32_t*>(sent),
              static_cast<int32_t>(tokens.size()), out, kStream);
  Must(LaunchError(), "embedding");
}

void CudaOps::RmsNorm(const float* x, const float* weight, int32_t rows, int32_t cols,
                      float epsilon, float* out) {
  Must(UseDevice(gpu_), "choosing it");
  LaunchRmsNorm(x, weight, rows, cols, epsilon, out, RoundingOfOutput(out, rows, cols), kStream);
  Must(LaunchError(), "a norm");
}

void CudaOps::SwiGlu(const float* gate, const float* up, int32_t rows, int32_t cols, float* out) {
  Must(UseDevice(gpu_), "choosing it");
  LaunchSwiGlu(gate, up, rows, cols, out, RoundingOfOutput(out, rows, cols), kStream);
  Must(LaunchError(), "SwiGLU");
}

// Where rows go that are rounded, which rounded_ then holds.
Rounding CudaOps::RoundingOf(const RoundedRows& rows) {
  const int32_t padded_cols = (rows.cols + kWeightCols - 1) / kWeightCols * kWeightCols;
  Rounding rounding;
  rounding.values = Reserve(rounded_, int64_t{rows.rows} * padded_cols * 2);
  rounding.row_scales =
      static_cast<float*>(Reserve(row_scales_, int64_t{rows.rows} * int64_t{sizeof(float)}));
  rounding.padded_cols = padded_cols;
  rounding.bf16 = rows.bf16;
  rounded_rows_ = rows;
  return rounding;
}

// A product is likely to come next that wants them as the last one did.
Rounding CudaOps::RoundingOfOutput(const float* out, int32_t rows, int32_t cols) {
  rounded_rows_ = {};
  if (!likely_bf16_.has_value()) return {};
  return RoundingOf({out, rows, cols, *likely_bf16_});
}

void CudaOps::MatMul(std::span<const Matrix* const> weights, const float* x, int32_t rows,
                     std::span<float* const> outs, bool add) {
  Must(UseDevice(gpu_), "choosing it");
  for (size_t i = 0; i < weights.size(); ++i) {
    const Weights& w = WeightsOf(weights[i]);
    if (w.format == WeightFormat::kF32) {
      LaunchMatMulF32(w, x, rows, outs[i], add, kStream);
      rounded_rows_ = {};
      continue;
    }
    const RoundedRows needed{x, rows, w.cols, w.format == WeightFormat::kBF16};
    if (rounded_rows_ != needed) {
      LaunchRound(x, rows, w.cols, RoundingOf(needed), kStream);
      likely_bf16_ = needed.bf16;
    }
    const MatMulPlan plan = PlanMatMul(w.rows, w.padded_cols, rows, info_.multiprocessors);
    float* partials = nullptr;
    if (plan.split) {
      partials = static_cast<float*>(Reserve(sums_, plan.partial_floats * int64_t{sizeof(float)}));
    }
    LaunchMatMul(w, plan, rounded_.buffer->data(),
                 reinterpret_cast<const float*>(row_scales_.buffer->data()), rows, outs[i], add,
                 partials, kStream);
  }
  Must(LaunchError(), "a matrix product");
}

// The ops of all layers of a step bring the same sequences: they are sent once.
void CudaOps::SendTables(std::span<const SequenceRows> sequences, const KvLayout& layout,
                         int32_t group) {
  Must(UseDevice(gpu_), "choosing it");
  BuildStepTables(sequences, layout.block_tokens, group, next_);
  const auto send = [this](Scratch& scratch, const auto& values, const auto& sent) {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(values[0]));
    const bool same = scratch.buffer != nullptr && SameBytes(values, sent);
    void* const to = Reserve(scratch, bytes);
    if (!same) Must(staging_.Send(to, values.data(), bytes), "sending a step's sequences");
  };
  send(places_, next_.places, tables_.places);
  send(block_tables_, next_.tables, tables_.tables);
  send(tiles_, next_.tiles, tables_.tiles);
  std::swap(tables_, next_);
}

void CudaOps::RopeAndStoreKv(const Rope& rope, const KvLayout& layout, std::byte* slab,
                             int32_t layer, int32_t heads, std::span<const SequenceRows> sequences,
                             float* q, const float* k, const float* v) {
  rounded_rows_ = {};
  SendTables(sequences, layout, heads / layout.kv_heads);
  RopeArguments a;
  a.cache = CacheOf(layout, layer);
  a.interleaved = rope.pairs == RopePairs::kInterleaved;
  a.rotary_dim = rope.rotary_dim;
  a.cosine = rope.cosine.data();
  a.sine = rope.sine.data();
  a.places = reinterpret_cast<const RowPlace*>(places_.buffer->data());
  a.tables = reinterpret_cast<const int32_t*>(block_tables_.buffer->data());
  a.rows = static_cast<int32_t>(tables_.places.size());
  a.heads = heads;
  a.q = q;
  a.k = k;
  a.v = v;
  a.slab = reinterpret_cast<char*>(slab);
  LaunchRopeAndStoreKv(a, kStream);
  Must(LaunchError(), "storing keys and values");
}

void CudaOps::Attention(const AttentionShape& shape, const KvLayout& layout, const std::byte* slab,
                        int32_t layer, std::span<const SequenceRows> sequences, const float* q,
                        float* out) {
  rounded_rows_ = {};
  SendTables(sequences, layout, shape.heads / layout.kv_heads);
  AttentionArguments a;
  a.cache = CacheOf(layout, layer);
  a.tiles = reinterpret_cast<const QueryTile*>(tiles_.buffer->data());
  a.tile_count = static_cast<int32_t>(tables_.tiles.size());
  a.places = reinterpret_cast<const RowPlace*>(places_.buffer->data());
  a.tables = reinterpret_cast<const int32_t*>(block_tables_.buffer->data());
  a.rows = static_cast<int32_t>(tables_.places.size());
  a.heads = shape.heads;
  a.scale = shape.scale;
  a.segments = (tables_.longest + kSegmentTokens - 1) / kSegmentTokens;
  a.q = q;
  a.out = out;
  a.slab = reinterpret_cast<const char*>(slab);
  const int64_t bytes =
      int64_t{sizeof(float)} * AttentionPartialFloats(a.rows, a.heads, a.segments, layout.head_dim);
  if (SplitsAttention(a.tile_count, layout.kv_heads, a.segments, bytes, info_.multiprocessors)) {
    a.partials = static_cast<float*>(Reserve(softmaxes_, bytes));
  }
  LaunchAttention(a, kStream);
  Must(LaunchError(), "attention");
}

static_assert(kLeftToHost == kDrawnByHost && sizeof(TokenId) == sizeof(int32_t));

void CudaOps::DrawTokens(const float* logits, int32_t vocab, std::span<const Draw> draws,
                         std::span<const LogitEdit> edits, std::span<TokenId> tokens) {
  std::ranges::fill(tokens, kDrawnByHost);
  const bool all_by_host =
      std::ranges::all_of(draws, [](const Draw& draw) { return draw.by_host; });
  if (all_by_host || vocab > kMostVocab) return;
  Must(UseDevice(gpu_), "choosing it");
  next_draws_.clear();
  for (const Draw& draw : draws) {
    next_draws_.push_back({.uniform = draw.uniform,
                           .temperature = draw.temperature,
                           .top_p = draw.top_p,
                           .min_p = draw.min_p,
                           .repetition_penalty = draw.repetition_penalty,
                           .presence_penalty = draw.presence_penalty,
                           .frequency_penalty = draw.frequency_penalty,
                           .top_k = draw.top_k,
                           .first_edit = draw.first_edit,
                           .edit_count = draw.edit_count,
                           .drawn = !draw.by_host});
    // More candidates than a block sorts: not worth the try.
    if (draw.temperature > 0 && draw.top_k > kMostCandidates && draw.top_k < vocab) {
      next_draws_.back().drawn = 0;
    }
  }
  next_edits_.clear();
  for (const LogitEdit& edit : edits) {
    next_edits_.push_back({edit.token, edit.bias, edit.count, edit.masked});
  }
  const auto send = [this](Scratch& scratch, const auto& values) {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(values[0]));
    void* const to = Reserve(scratch, std::max<int64_t>(bytes, 1));
    Must(staging_.Send(to, values.data(), bytes), "sending what to draw");
    return to;
  };
  const auto rows = static_cast<int32_t>(draws.size());
  const auto token_bytes = static_cast<int64_t>(tokens.size_bytes());
  DrawArguments a;
  a.logits = logits;
  a.vocab = vocab;
  a.rows = static_cast<const DrawRow*>(send(draw_rows_, next_draws_));
  a.edits = static_cast<const DrawEdit*>(send(draw_edits_, next_edits_));
  a.values =
      static_cast<float*>(Reserve(draw_values_, int64_t{rows} * vocab * int64_t{sizeof(float)}));
  a.tokens = static_cast<int32_t*>(Reserve(drawn_, token_bytes));
  Must(staging_.Send(a.tokens, tokens.data(), token_bytes), "sending what to draw");
  LaunchDraw(a, rows, kStream);
  Must(LaunchError(), "drawing tokens");
  Must(CopyToHost(tokens.data(), a.tokens, token_bytes), "bringing the tokens");
}

double CudaOps::MeasureTensorGopS(int32_t rounds) {
  Must(UseDevice(gpu_), "choosing it");
  constexpr int32_t kBlocksEach = 8;
  const int32_t blocks = info_.multiprocessors * kBlocksEach;
  auto* const out =
      static_cast<float*>(Reserve(sums_, int64_t{blocks} * kProbeThreads * int64_t{sizeof(float)}));
  double best = 0;
  for (int i = 0; i < 4; ++i) {
    Must(Synchronize(), "a probe");
    const auto begin = std::chrono::steady_clock::now();
    const double operations = LaunchTensorProbe(blocks, rounds, out, kStream);
    Must(Synchronize(), "a probe");
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    best = std::max(best, operations / seconds.count() / 1e9);
  }
  Must(LaunchError(), "a probe");
  return best;
}

}  // namespace cuda

absl::StatusOr<std::unique_ptr<Ops>> CreateCudaOps(const CudaOptions& options) {
  return cuda::CudaOps::Create(options);
}

}  // namespace baton::kernels
